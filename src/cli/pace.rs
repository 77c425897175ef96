//! The pace of a run: how long it takes, said at its start where that is long, and how far it is, now and
//! then where no bar shows it. Worked out from the run itself, so that it costs nothing.

use crate::results::print::duration;
use std::time::Duration;

/// Runs that take no longer are not worth a word.
const LONG: Duration = Duration::from_secs(10);
/// Before that a share says too little.
const FIRST: Duration = Duration::from_millis(500);
/// Between two lines at least.
const PAUSE: Duration = Duration::from_secs(30);
/// Between two lines at most.
const SILENCE: Duration = Duration::from_secs(600);
/// Share of the run between two lines, 0…1.
const STEP: f64 = 0.1;

/// What is worth saying.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// Once: the whole run takes so long.
    Long(String),
    /// So much is done, so much time is left.
    Progress(String),
}

/// Tokens of a run against the time they take.
pub struct Pace {
    tokens: u64,
    done: u64,
    told: bool,
    /// When the last line was said, and at which share.
    last: (Duration, f64),
}

impl Pace {
    /// Of a run in which `tokens` go through models.
    pub fn new(tokens: usize) -> Self {
        Self { tokens: tokens as u64, done: 0, told: false, last: (Duration::ZERO, 0.0) }
    }

    /// `tokens` more are done, `elapsed` after the run began.
    pub fn advanced(&mut self, tokens: usize, elapsed: Duration) -> Option<Word> {
        self.done += tokens as u64;
        let share = self.done as f64 / self.tokens as f64;
        if elapsed < FIRST || !(share > 0.0 && share < 1.0) {
            return None;
        }
        let whole = elapsed.as_secs_f64() / share;
        if !self.told {
            self.told = true;
            self.last = (elapsed, share);
            return (whole > LONG.as_secs_f64())
                .then(|| Word::Long(format!("this takes about {}", duration(whole))));
        }
        let (at, before) = self.last;
        let since = elapsed.saturating_sub(at);
        if since < PAUSE || (since < SILENCE && share - before < STEP - 1e-9) {
            return None;
        }
        self.last = (elapsed, share);
        let left = duration(whole - elapsed.as_secs_f64());
        Some(Word::Progress(format!("{:.0} % done, about {left} left", 100.0 * share)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a run of `tokens` that makes `rate` of them a second, told of one second each.
    fn lines(tokens: usize, rate: usize) -> Vec<(u64, Word)> {
        let mut pace = Pace::new(tokens);
        let seconds = 1..=(tokens / rate) as u64;
        seconds.filter_map(|s| Some((s, pace.advanced(rate, Duration::from_secs(s))?))).collect()
    }

    #[test]
    fn a_long_run_says_so_once_and_then_how_far_it_is() {
        assert_eq!(lines(9000, 1000), []);
        let long = |words: &str| Word::Long(words.into());
        assert_eq!(lines(20_000, 1000), [(1, long("this takes about 20 s"))]);
        // 10 % of 600 s are 60 s; of 100 s they are less than the pause.
        let told = lines(600_000, 1000);
        let at: Vec<u64> = told.iter().map(|(second, _)| *second).collect();
        assert_eq!(at, [1, 61, 121, 181, 241, 301, 361, 421, 481, 541]);
        assert_eq!(told[0].1, long("this takes about 10 min"));
        assert_eq!(told[1].1, Word::Progress("10 % done, about 9 min left".into()));
        let at: Vec<u64> = lines(100_000, 1000).iter().map(|(second, _)| *second).collect();
        assert_eq!(at, [1, 31, 61, 91]);
        // A day: not silent for longer than ten minutes.
        let at: Vec<u64> = lines(864_000, 10).iter().map(|(second, _)| *second).collect();
        assert_eq!(&at[..3], [1, 601, 1201]);
    }

    #[test]
    fn the_first_moment_and_a_run_of_nothing_say_nothing() {
        let mut pace = Pace::new(1000);
        assert_eq!(pace.advanced(1, Duration::from_millis(400)), None);
        let word = Word::Long("this takes about 4 min".into());
        assert_eq!(pace.advanced(1, Duration::from_millis(520)), Some(word));
        assert_eq!(Pace::new(0).advanced(0, Duration::from_secs(60)), None);
        assert_eq!(Pace::new(5).advanced(5, Duration::from_secs(60)), None);
    }
}
