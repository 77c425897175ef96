//! Which part of a sweep a task is, as its scheduler's environment says: `--shard auto`.

use super::Shard;
use crate::error::{Error, Result};

/// Where the tasks of a scheduler find their index and their number.
struct Scheduler {
    name: &'static str,
    /// Of this task.
    index: &'static str,
    /// Of the first task: a variable, or a number.
    first: From,
    /// From a task's index to the next one's, where that is not 1.
    step: Option<&'static str>,
    count: Count,
}

/// The index of the first task.
enum From {
    Number(usize),
    Variable(&'static str),
}

/// The number of tasks.
enum Count {
    Variable(&'static str),
    /// The index of the last task.
    Last(&'static str),
    /// The environment has none: `--shards` says it.
    Told,
}

/// A scheduler's own words, each from its documentation.
const SCHEDULERS: [Scheduler; 6] = [
    // sbatch(1), "OUTPUT ENVIRONMENT VARIABLES".
    Scheduler {
        name: "Slurm's array",
        index: "SLURM_ARRAY_TASK_ID",
        first: From::Variable("SLURM_ARRAY_TASK_MIN"),
        step: Some("SLURM_ARRAY_TASK_STEP"),
        count: Count::Variable("SLURM_ARRAY_TASK_COUNT"),
    },
    // Jobs, "Completion mode": Indexed.
    Scheduler {
        name: "Kubernetes' indexed job",
        index: "JOB_COMPLETION_INDEX",
        first: From::Number(0),
        step: None,
        count: Count::Told,
    },
    // SkyPilot, "Managed jobs: many parallel jobs".
    Scheduler {
        name: "SkyPilot's jobs",
        index: "SKYPILOT_JOB_RANK",
        first: From::Number(0),
        step: None,
        count: Count::Variable("SKYPILOT_NUM_JOBS"),
    },
    // SkyPilot, "Distributed multi-node jobs".
    Scheduler {
        name: "SkyPilot's nodes",
        index: "SKYPILOT_NODE_RANK",
        first: From::Number(0),
        step: None,
        count: Count::Variable("SKYPILOT_NUM_NODES"),
    },
    // submit(1), "-t".
    Scheduler {
        name: "Grid Engine's array",
        index: "SGE_TASK_ID",
        first: From::Variable("SGE_TASK_FIRST"),
        step: Some("SGE_TASK_STEPSIZE"),
        count: Count::Last("SGE_TASK_LAST"),
    },
    // parallel(1), "ENVIRONMENT VARIABLES".
    Scheduler {
        name: "GNU parallel",
        index: "PARALLEL_SEQ",
        first: From::Number(1),
        step: None,
        count: Count::Told,
    },
];

impl Shard {
    /// The part that the environment says, and who said it. `count`: the number of parts, which some
    /// schedulers do not say; where they do, it must be theirs.
    ///
    /// # Errors
    /// No scheduler, or two of them; a number that is missing, or that contradicts another.
    pub fn of_environment(
        variable: impl Fn(&str) -> Option<String>,
        count: Option<usize>,
    ) -> Result<(Self, &'static str)> {
        // Grid Engine says "undefined" outside an array.
        let said = |name: &str| variable(name).filter(|value| value != "undefined");
        let mut there: Vec<&Scheduler> =
            SCHEDULERS.iter().filter(|scheduler| said(scheduler.index).is_some()).collect();
        // One that has a single task says nothing beside another: SkyPilot counts nodes within each job.
        if there.len() > 1 {
            there.retain(|scheduler| !scheduler.has_one_task(&said));
        }
        let names = |of: &[&Scheduler]| of.iter().map(|s| s.index).collect::<Vec<_>>().join(", ");
        match there.as_slice() {
            [scheduler] => Ok((scheduler.shard(&said, count)?, scheduler.name)),
            [] => {
                let known = names(&SCHEDULERS.iter().collect::<Vec<_>>());
                Err(Error::input(format!("--shard auto: expected one of {known}, found none"))
                    .hint("outside these schedulers say it: --shard 2/8"))
            }
            several => Err(Error::input(format!(
                "--shard auto: expected one scheduler, found {}",
                names(several)
            ))
            .hint("say which part this is: --shard I/N, I from 1 on")),
        }
    }
}

impl Scheduler {
    fn has_one_task(&self, said: &dyn Fn(&str) -> Option<String>) -> bool {
        matches!(self.count, Count::Variable(name) if said(name).as_deref() == Some("1"))
    }

    fn shard(&self, said: &dyn Fn(&str) -> Option<String>, told: Option<usize>) -> Result<Shard> {
        let number = |name: &str| {
            let text = said(name).unwrap_or_default();
            text.trim().parse::<usize>().map_err(|_| {
                Error::input(format!("{name}: expected a whole number, found {text:?}"))
                    .hint(format!("{} should have set it; --shard I/N needs none", self.name))
            })
        };
        let first = match self.first {
            From::Number(first) => first,
            From::Variable(name) => number(name)?,
        };
        let step = self.step.map_or(Ok(1), number)?.max(1);
        let outside = |name: &str, expected: String, found: usize| {
            Error::input(format!("{name}: expected {expected}, found {found}"))
                .hint("say which part this is: --shard I/N, I from 1 on")
        };
        let index = number(self.index)?;
        let place = index.checked_sub(first).filter(|place| place % step == 0);
        let place = place
            .ok_or_else(|| outside(self.index, format!("{first}, {} …", first + step), index))?
            / step;
        let count = match self.count {
            Count::Variable(name) => Some(number(name)?),
            Count::Last(name) => Some(number(name)?.saturating_sub(first) / step + 1),
            Count::Told => None,
        };
        let of = match (count, told) {
            (Some(count), Some(told)) if count != told => {
                return Err(Error::input(format!(
                    "--shards {told}: expected the {count} tasks that {} has",
                    self.name
                ))
                .hint("leave it out, or start as many tasks"));
            }
            (Some(count), _) | (None, Some(count)) => count,
            (None, None) => {
                return Err(Error::input(format!(
                    "--shard auto: {} does not say how many tasks there are",
                    self.name
                ))
                .hint("say it: --shards N"));
            }
        };
        Shard::new(place + 1, of)
            .ok_or_else(|| outside(self.index, format!("one of {of} tasks"), index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(words: &str, count: Option<usize>) -> std::result::Result<(String, &str), String> {
        let pairs: Vec<_> = words.split_whitespace().filter_map(|w| w.split_once('=')).collect();
        let variable = |name: &str| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_string())
        };
        Shard::of_environment(variable, count)
            .map(|(shard, name)| (shard.to_string(), name))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn every_scheduler_is_read_in_its_own_words() {
        let slurm = "SLURM_ARRAY_TASK_ID=7 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_STEP=2 \
            SLURM_ARRAY_TASK_COUNT=4";
        let engine = "SGE_TASK_ID=21 SGE_TASK_FIRST=1 SGE_TASK_LAST=40 SGE_TASK_STEPSIZE=10";
        for (words, count, shard, name) in [
            (slurm, None, "3/4", "Slurm's array"),
            (slurm, Some(4), "3/4", "Slurm's array"),
            ("JOB_COMPLETION_INDEX=0", Some(5), "1/5", "Kubernetes' indexed job"),
            ("SKYPILOT_NODE_RANK=1 SKYPILOT_NUM_NODES=2", None, "2/2", "SkyPilot's nodes"),
            ("SKYPILOT_JOB_RANK=9 SKYPILOT_NUM_JOBS=10", None, "10/10", "SkyPilot's jobs"),
            (engine, None, "3/4", "Grid Engine's array"),
            (
                "SKYPILOT_JOB_RANK=9 SKYPILOT_NUM_JOBS=10 SKYPILOT_NODE_RANK=0 SKYPILOT_NUM_NODES=1",
                None,
                "10/10",
                "SkyPilot's jobs",
            ),
            ("PARALLEL_SEQ=8", Some(8), "8/8", "GNU parallel"),
            ("SGE_TASK_ID=undefined PARALLEL_SEQ=1", Some(3), "1/3", "GNU parallel"),
        ] {
            assert_eq!(found(words, count), Ok((shard.into(), name)), "{words}");
        }
    }

    #[test]
    fn what_does_not_say_one_part_is_an_error() {
        for (words, count, part) in [
            ("", None, "SLURM_ARRAY_TASK_ID"),
            ("SGE_TASK_ID=undefined", None, "found none"),
            ("JOB_COMPLETION_INDEX=3", None, "does not say how many"),
            ("JOB_COMPLETION_INDEX=3", Some(3), "one of 3 tasks, found 3"),
            ("PARALLEL_SEQ=0", Some(3), "found 0"),
            ("PARALLEL_SEQ=x", Some(3), "\"x\""),
            ("SKYPILOT_NODE_RANK=1", None, "SKYPILOT_NUM_NODES"),
            ("SKYPILOT_NODE_RANK=1 SKYPILOT_NUM_NODES=2", Some(3), "the 2 tasks"),
            (
                "SKYPILOT_JOB_RANK=9 SKYPILOT_NUM_JOBS=10 SKYPILOT_NODE_RANK=0 SKYPILOT_NUM_NODES=2",
                None,
                "expected one scheduler",
            ),
            ("PARALLEL_SEQ=1 JOB_COMPLETION_INDEX=0", Some(3), "expected one scheduler"),
        ] {
            let error = found(words, count).unwrap_err();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
