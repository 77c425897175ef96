//! `kvgauge4`, `kvgauge3` and `kvgauge2`: two centres, a Hadamard rotation, levels fitted to what that
//! leaves, and noise shaping.
//!
//! Its steps, each with its reason:
//!
//! - **Keys before RoPE** (`prerope`): what repeats from token to token is there in full.
//! - **Two centres.** Keys (and less so values) of a head lie around their mean; but the first
//!   token, and a few later ones that models use in the same way, lie around the first token
//!   (attention sinks, Xiao et al. 2024). A token is stored as its difference to the nearer of the
//!   two, which one bit says. The first token is exact.
//! - **The mean is that of the tokens decoded so far**, taken anew at tokens 2, 3, 4, 6, 8, 12, 16,
//!   24 …: it takes no room, and a stream knows it.
//! - **Hadamard** (QuaRot, Ashkboos et al. 2024) in blocks of 64 to 124 channels, or one
//!   for a smaller head, makes what is left nearly Gaussian. Each block has channels of all
//!   rotary frequencies.
//! - **Levels** that code such a block with the least squared error (Lloyd 1982), with a scale of
//!   2^(k/8): 19 for keys, four codes in 17 bits, and 16 for values.
//! - With fewer bits, a **trellis** (trellis-coded quantisation, Marcellin and Fischer 1990) in place of levels
//!   that every code has alike, and **codes as long as they are rare** (Fischer and Wang 1992): of a Gaussian at 3
//!   bits both together are 2.5 dB better than the best 8 levels. All blocks have the same length, into which
//!   the encoder makes codes fit. The **scale** is such that a block has no bias along itself, since
//!   levels of least error are too short, by 2 to 15 % at these rates, and make attention flatter.
//! - **Noise shaping** (`shape`), known to the encoder only: the error is moved to channels that
//!   queries weigh least, those of fast rotary frequencies, each code taking up what earlier ones left
//!   (LDLQ, Chee et al. 2023).
//!
//! Numbers of one block, every step one rounding to f32: scale s = 2^(k/8), level
//! l(n) = n·(a + n²·(b + n²·c)), value = rotated (l(n)·s) + centre.

mod alone;
mod blocks;
mod coder;
mod definition;
mod feedback;
mod head;
mod levels;
mod noise_shaping;
mod payload;
mod tile;
mod trellis;
mod trellis_coder;
mod viterbi;
mod words;

pub use blocks::BlockRule;
pub use definition::TwoCentre;
pub use levels::FittedLevels;
pub(super) use payload::TwoCentrePayload;
