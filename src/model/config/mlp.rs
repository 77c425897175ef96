//! The MLP of a layer: one that is gated, or a mixture of them.

/// The MLP of one layer.
#[derive(Debug, Clone, PartialEq)]
pub enum MlpConfig {
    /// down(act(gate) · up).
    Gated(GatedMlp),
    /// A mixture of such.
    Experts(Experts),
}

/// Widths between the two halves of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MlpWidths {
    /// Of all experts together.
    pub all: usize,
    /// Of those that a token goes through.
    pub used: usize,
}

impl MlpConfig {
    /// Of the gate, which are those of up and down.
    pub(crate) fn widths(&self) -> MlpWidths {
        match self {
            Self::Gated(mlp) => {
                MlpWidths { all: mlp.intermediate_size, used: mlp.intermediate_size }
            }
            Self::Experts(mlp) => {
                let (width, shared) = (mlp.intermediate_size, mlp.shared.unwrap_or(0));
                MlpWidths { all: mlp.count * width + shared, used: mlp.used * width + shared }
            }
        }
    }
}

/// A gated MLP.
#[derive(Debug, Clone, PartialEq)]
pub struct GatedMlp {
    /// Width between.
    pub intermediate_size: usize,
    /// Of the gate.
    pub activation: Activation,
    /// Whether gate, up and down have biases.
    pub bias: bool,
    /// Whether gate and up are one tensor in files, below each other.
    pub fused: bool,
}

/// A mixture of experts: each token goes through the `used` that its router gives the highest
/// probabilities, and their outputs are added up by those.
#[derive(Debug, Clone, PartialEq)]
pub struct Experts {
    /// All of them.
    pub count: usize,
    /// Those that a token goes through.
    pub used: usize,
    /// Width of each.
    pub intermediate_size: usize,
    /// Of the gates.
    pub activation: Activation,
    /// Whether the probabilities of those used are divided by their sum.
    pub normalised: bool,
    /// Width of an expert that all tokens go through, multiplied by the sigmoid of a gate.
    pub shared: Option<usize>,
    /// What Hugging Face calls the tensors.
    pub names: ExpertNames,
}

/// Names of a mixture's tensors in a layer of a Hugging Face model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertNames {
    /// The router.
    pub router: &'static str,
    /// Before an expert's index.
    pub expert: &'static str,
    /// An expert's gate, up and down.
    pub projections: [&'static str; 3],
}

/// The activation of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// x · Φ(x)
    Gelu,
    /// Its approximation with tanh.
    GeluTanh,
    /// max(x, 0)
    Relu,
}
