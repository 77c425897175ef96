//! Lines of the logs in a sweep's folder: finished cells, and windows of cells still running.
//!
//! They name their version and hold what was measured; figures are derived when they
//! are read, so that a new figure costs no finished cell. A field that later versions add is
//! passed over, one that they need and older lines lack has a default.

use super::figures::{Baseline, CodecFigures};
use super::log::{self, Logged, Rejected};
use super::measurement::{self, CodecMeasurement, PerTarget};
use super::plan::{CellName, PlannedCell};
use super::subject::{SubjectInfo, UNKNOWN_INSTRUCTION_SET};
use crate::codec::{lasting_name, todays_names};
use crate::error::{Error, Result};
use crate::eval::CodecWindow;
use crate::hash;
use crate::settings::FloatType;
use serde::{Deserialize, Serialize};

const CELL: &str = "kvgauge.sweep-cell/3";
/// Lines of this version name some codecs as they were called before ([`todays_names`]).
const CELL_OF_FORMER_NAMES: &str = "kvgauge.sweep-cell/2";
/// Lines of this version hold figures, and former names; they are read for ever.
const CELL_OF_FIGURES: &str = "kvgauge.sweep-cell/1";
const WINDOW: &str = "kvgauge.sweep-window/2";
/// Lines of this version hold scores as arrays of four numbers.
const WINDOW_OF_SCORES: &str = "kvgauge.sweep-window/1";

/// A cell that came to an end, as a line of the log of cells says it.
#[derive(Debug, Clone, PartialEq)]
pub struct CellRecord {
    /// The cell as asked for.
    pub cell: CellName,
    /// Its end.
    pub outcome: CellOutcome,
}

/// The end of a cell.
#[derive(Debug, Clone, PartialEq)]
pub enum CellOutcome {
    /// It has figures.
    Done(Box<CellResult>),
    /// It has none, and why.
    Failed(CellFailure),
}

/// Why a cell has no figures.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellFailure {
    /// [`cell_id`], where it was known by then.
    pub id: Option<String>,
    /// The error, one line.
    pub error: String,
    /// Its hint.
    pub hint: Option<String>,
}

impl CellFailure {
    /// A failure of the cell with this id.
    pub fn new(id: Option<String>, error: &Error) -> Self {
        Self { id, error: error.to_string(), hint: error.hint_text().map(str::to_string) }
    }
}

/// A finished cell, its figures derived.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct CellResult {
    /// [`cell_id`]
    pub id: String,
    /// [`subject_id`]
    pub subject_id: String,
    /// Model, text, windows and protocol.
    pub subject: SubjectInfo,
    /// The untouched cache.
    pub baseline: Baseline,
    /// The codec's figures.
    pub figures: CodecFigures,
}

/// A finished cell as it is logged: what was measured, and on what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellMeasurement {
    /// [`cell_id`]
    pub id: String,
    /// [`subject_id`]
    pub subject_id: String,
    /// Model, text, windows and protocol.
    pub subject: SubjectInfo,
    /// −ln p of every scored target under the untouched cache, nats, by window.
    pub baseline: Vec<PerTarget>,
    /// The codec and its windows.
    pub measured: CodecMeasurement,
}

/// A line of the log of cells, ready to be written.
#[derive(Debug, Clone, Serialize)]
pub struct CellLine {
    schema: &'static str,
    #[serde(flatten)]
    cell: CellName,
    #[serde(flatten)]
    outcome: LineOutcome,
}

#[derive(Debug, Clone, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum LineOutcome {
    Done(Box<CellMeasurement>),
    Failed(CellFailure),
}

/// A line of the log of windows: what a killed run need not do again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WindowRecord {
    /// Version of the line.
    pub schema: String,
    /// [`subject_id`]
    pub subject_id: String,
    /// Index in the subject's windows.
    pub window: usize,
    /// −ln p of every scored target under the untouched cache, nats.
    pub baseline: PerTarget,
    /// Cells that had this window done.
    pub arms: Vec<ArmRecord>,
}

/// One cell on one window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmRecord {
    /// [`cell_id`]
    pub cell_id: String,
    /// Scores and sums of the window.
    pub outcome: CodecWindow,
}

impl CellLine {
    /// `cell`'s codec is that of the measurement.
    pub fn done(cell: CellName, measurement: CellMeasurement) -> Self {
        Self { schema: CELL, cell, outcome: LineOutcome::Done(Box::new(measurement)) }
    }

    /// A line of a cell that ended in an error.
    pub fn failed(cell: PlannedCell, error: &Error) -> Self {
        let outcome = LineOutcome::Failed(CellFailure::new(cell.id, error));
        Self { schema: CELL, cell: cell.name, outcome }
    }

    /// The record that a reader of the line has.
    pub fn into_record(self) -> CellRecord {
        let outcome = match self.outcome {
            LineOutcome::Done(measurement) => CellOutcome::Done(Box::new((*measurement).into())),
            LineOutcome::Failed(failure) => CellOutcome::Failed(failure),
        };
        CellRecord { cell: self.cell, outcome }
    }
}

impl From<CellMeasurement> for CellResult {
    fn from(measurement: CellMeasurement) -> Self {
        let CellMeasurement { id, subject_id, subject, baseline, measured } = measurement;
        let nll: Vec<Vec<f64>> = baseline.into_iter().map(|window| window.0).collect();
        let figures = CodecFigures::new(&measured.codec, &measured.windows, &nll, &subject);
        Self { id, subject_id, subject, baseline: Baseline::of(&nll), figures }
    }
}

impl Logged for CellRecord {
    fn read(record: &str) -> std::result::Result<Self, Rejected> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(flatten)]
            cell: CellName,
            status: Status,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Status {
            Done,
            Failed,
        }
        let schema = log::schema(record)?;
        if ![CELL, CELL_OF_FORMER_NAMES, CELL_OF_FIGURES].contains(&schema.as_str()) {
            return Err(Rejected::Version(schema));
        }
        let rename = |codec: &mut String| {
            if schema != CELL {
                *codec = todays_names(codec);
            }
        };
        // Of former versions it is another codec's, under a name that nothing else has.
        let same_floor = |codec: &str, dtype| match schema != CELL && is_floor(codec, dtype) {
            true => Err(Rejected::Version(schema.clone())),
            false => Ok(()),
        };
        let Head { mut cell, status } = log::parse(record)?;
        rename(&mut cell.codec);
        let outcome = match status {
            Status::Failed => CellOutcome::Failed(log::parse(record)?),
            Status::Done if schema == CELL_OF_FIGURES => {
                let mut result: CellResult = log::parse(record)?;
                rename(&mut result.figures.codec);
                same_floor(&result.figures.codec, result.subject.dtype)?;
                CellOutcome::Done(Box::new(of_figures(result)?))
            }
            Status::Done => {
                let mut measurement: CellMeasurement = log::parse(record)?;
                rename(&mut measurement.measured.codec);
                same_floor(&measurement.measured.codec, measurement.subject.dtype)?;
                measurement.check().map_err(|e| Rejected::Content(e.to_string()))?;
                CellOutcome::Done(Box::new(measurement.into()))
            }
        };
        Ok(Self { cell, outcome })
    }
}

impl CellMeasurement {
    /// Its id says what it is of, and every window and layer is there.
    fn check(&self) -> Result<()> {
        check_ids(&self.id, &self.subject_id, &self.subject, &self.measured.codec)?;
        if self.baseline.len() != self.subject.windows {
            return Err(Error::input(format!(
                "expected {} windows, found {}",
                self.subject.windows,
                self.baseline.len()
            )));
        }
        measurement::check(&self.measured.windows, &self.baseline, self.subject.model.layers)
    }
}

/// A line of version 1 had figures in the place of what was measured: they are what they are.
fn of_figures(result: CellResult) -> std::result::Result<CellResult, Rejected> {
    let CellResult { id, subject_id: of, subject, baseline, figures } = &result;
    let windows = [&baseline.nll_per_window, &figures.nll_per_window, &figures.kld_per_window];
    let whole = windows.iter().all(|windows| windows.len() == subject.windows)
        && figures.layers.len() == subject.model.layers
        && figures.bits_per_value > 0.0;
    check_ids(id, of, subject, &figures.codec).map_err(|e| Rejected::Content(e.to_string()))?;
    match whole {
        true => Ok(result),
        false => Err(Rejected::Content("expected figures of every window and layer".into())),
    }
}

fn check_ids(id: &str, of: &str, subject: &SubjectInfo, codec: &str) -> Result<()> {
    match subject_id(subject)? == *of && id == cell_id(of, codec, subject.dtype) {
        true => Ok(()),
        false => Err(Error::input("expected the ids that its subject and codec give")),
    }
}

impl WindowRecord {
    /// A line of this version.
    pub fn new(
        subject_id: String,
        window: usize,
        baseline: Vec<f64>,
        arms: Vec<ArmRecord>,
    ) -> Self {
        Self { schema: WINDOW.into(), subject_id, window, baseline: PerTarget(baseline), arms }
    }

    /// Whether it is a window of `subject`, and whole.
    pub fn is_of(&self, subject: &SubjectInfo) -> bool {
        let Self { window, baseline, arms, .. } = self;
        let base = std::slice::from_ref(baseline);
        let whole = |arm: &ArmRecord| {
            let windows = std::slice::from_ref(&arm.outcome);
            measurement::check(windows, base, subject.model.layers).is_ok()
        };
        *window < subject.windows
            && baseline.0.len() == subject.window_shape().scored_len()
            && arms.iter().all(whole)
    }
}

impl Logged for WindowRecord {
    fn read(record: &str) -> std::result::Result<Self, Rejected> {
        let schema = log::schema(record)?;
        match [WINDOW, WINDOW_OF_SCORES].contains(&schema.as_str()) {
            true => log::parse(record),
            false => Err(Rejected::Version(schema)),
        }
    }
}

/// Hash of everything that determines a subject's numbers: the contents of model and text, not
/// their paths; not the thread count, which changes no bit. Lines of logs that do not know their
/// instruction set keep the id they had.
pub fn subject_id(subject: &SubjectInfo) -> Result<String> {
    let model = &subject.model.provenance;
    let mut identity = serde_json::json!({
        "kvgauge_version": env!("CARGO_PKG_VERSION"),
        "protocol": subject.protocol,
        // The hub's commit says it all. Local files are known by their hashes; a single one may
        // have any name.
        "model": match (&model.revision, model.files_sha256.len()) {
            (Some(commit), _) => serde_json::json!(commit),
            (None, 1) => serde_json::json!(model.files_sha256.values().next()),
            (None, _) => serde_json::json!(model.files_sha256),
        },
        "text": subject.text.sha256,
        "context": subject.context,
        "first_window": subject.first_window,
        "windows": subject.windows,
        "bos_id": subject.bos_id,
        "dtype": subject.dtype,
        "device": subject.device,
        "seed": subject.seed,
    });
    if subject.instruction_set != UNKNOWN_INSTRUCTION_SET {
        identity["instruction_set"] = subject.instruction_set.as_str().into();
    }
    // Said only where it is not the default: ids from before it could be said stay.
    if !subject.text.parse_special {
        identity["parse_special"] = false.into();
    }
    let bytes = serde_json::to_vec(&identity).map_err(|e| Error::system(format!("JSON: {e}")))?;
    Ok(short(&bytes))
}

/// Hash of a subject's id and what a codec's name means: one that is called otherwise now keeps its
/// id, and the codec that has its former name another. So has `f16` in 16 bits, which was a round trip.
pub fn cell_id(subject_id: &str, codec: &str, dtype: FloatType) -> String {
    let codec = match is_floor(codec, dtype) {
        true => "f16 that rounds otherwise".into(),
        false => lasting_name(codec),
    };
    short(format!("{subject_id} {codec}").as_bytes())
}

/// Whether a codec is what the rounding of a run in 16 bits is measured with.
fn is_floor(codec: &str, dtype: FloatType) -> bool {
    codec == "f16" && dtype.floor().is_some()
}

/// 64 bits are plenty for the cells of a lifetime.
fn short(bytes: &[u8]) -> String {
    hash::sha256(bytes)[..16].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::scores::TokenScore;
    use crate::results::fixture;

    #[test]
    fn control_tokens_as_plain_text_are_other_cells_and_old_ones_stay() {
        let own = fixture::subject_info("builtin", 2, 4);
        let mut plain = own.clone();
        plain.text.parse_special = false;
        assert_ne!(subject_id(&own).unwrap(), subject_id(&plain).unwrap());
        // A record from before it could be said.
        let mut json = serde_json::to_value(&own).unwrap();
        json["text"].as_object_mut().unwrap().remove("parse_special").unwrap();
        assert_eq!(serde_json::from_value::<SubjectInfo>(json).unwrap(), own);
        let json = serde_json::to_value(&plain).unwrap();
        assert_eq!(json["text"]["parse_special"], false);
        assert_eq!(serde_json::from_value::<SubjectInfo>(json).unwrap(), plain);
    }

    /// Lines of a file of `tests/data/sweep-v1`, without their checksums.
    fn lines_of_version_1(file: &str) -> Vec<serde_json::Value> {
        let path = format!("tests/data/sweep-v1/{file}");
        let lines = std::fs::read_to_string(path).unwrap();
        let record = |line: &str| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["record"].take()
        };
        lines.lines().map(record).collect()
    }

    fn done(record: CellRecord) -> CellResult {
        match record.outcome {
            CellOutcome::Done(result) => *result,
            CellOutcome::Failed(failure) => panic!("{failure:?}"),
        }
    }

    #[test]
    fn lines_of_version_1_are_read_for_ever() {
        for line in lines_of_version_1("cells.jsonl") {
            let result = done(CellRecord::read(&line.to_string()).unwrap());
            assert_eq!(line["figures"]["kld_p999"], result.figures.kld_p999);
            assert_eq!(line["baseline"]["perplexity"], result.baseline.perplexity);
            // As it was before these were written.
            let mut older = line.clone();
            let subject = older["subject"].as_object_mut().unwrap();
            subject.remove("seed").unwrap();
            older["figures"].as_object_mut().unwrap().remove("targets_affected").unwrap();
            assert_eq!(done(CellRecord::read(&older.to_string()).unwrap()), result);
            let mut cut = line.clone();
            cut["figures"]["nll_per_window"].as_array_mut().unwrap().pop();
            assert!(matches!(CellRecord::read(&cut.to_string()), Err(Rejected::Content(_))));
        }
        for line in lines_of_version_1("windows.jsonl") {
            let window = WindowRecord::read(&line.to_string()).unwrap();
            let first = &window.arms[0].outcome.scores[0];
            assert_eq!(line["arms"][0]["outcome"]["scores"][0][1], first.kld);
            assert_eq!(window.baseline.0.len(), 7);
        }
    }

    /// In 16 bits `f16` was a round trip that changed nothing: what former versions measured with it is no
    /// floor.
    #[test]
    fn f16_in_16_bits_is_another_codec_than_before() {
        let of = |schema: &str, dtype| {
            let mut cell = measurement();
            cell.subject.dtype = dtype;
            cell.measured.codec = "f16".into();
            cell.subject_id = subject_id(&cell.subject).unwrap();
            cell.id = cell_id(&cell.subject_id, "f16", dtype);
            let mut json = serde_json::to_value(CellLine::done(name(), cell)).unwrap();
            json["schema"] = schema.into();
            if schema != CELL {
                let subject_id = json["subject_id"].as_str().unwrap();
                json["id"] = short(format!("{subject_id} f16").as_bytes()).into();
            }
            CellRecord::read(&json.to_string())
        };
        assert!(of(CELL, FloatType::Bf16).is_ok() && of(CELL, FloatType::F32).is_ok());
        assert!(of(CELL_OF_FORMER_NAMES, FloatType::F32).is_ok());
        let former = of(CELL_OF_FORMER_NAMES, FloatType::Bf16);
        assert!(matches!(former, Err(Rejected::Version(_))));
    }

    /// A measurement whose figures are anything but whole numbers.
    fn measurement() -> CellMeasurement {
        let subject =
            SubjectInfo { context: 8, scored_tokens: 9, ..fixture::subject_info("builtin", 3, 2) };
        let window = |window: u32| {
            let score = |target: u32| {
                let at = f64::from(3 * window + target);
                TokenScore { nll: 2.0 + at.sin(), kld: 0.1 / (1.0 + at), same_top: target != 1 }
            };
            CodecWindow {
                scores: (0..3).map(score).collect(),
                targets_affected: 3,
                layers: vec![Default::default(); 2],
                stored_bytes: 100,
                values: 160,
                cached_tokens: 4,
            }
        };
        let subject_id = subject_id(&subject).unwrap();
        CellMeasurement {
            id: cell_id(&subject_id, "int4-g64", FloatType::F32),
            subject_id,
            subject,
            baseline: (0..3).map(|w| PerTarget(vec![2.0 + 0.1 * f64::from(w); 3])).collect(),
            measured: CodecMeasurement {
                codec: "int4-g64".into(),
                windows: (0..3).map(window).collect(),
            },
        }
    }

    fn name() -> CellName {
        let (model, text, codec) = ("builtin".into(), "builtin".into(), "int4-g64".into());
        CellName { model, text, context: Some(8), protocol: Some("prefix".into()), codec }
    }

    #[test]
    fn figures_follow_from_what_was_logged() {
        let line = CellLine::done(name(), measurement());
        let json = serde_json::to_string(&line).unwrap();
        let told = line.into_record();
        assert_eq!(CellRecord::read(&json).unwrap(), told);
        let figures = done(told).figures;
        // 0.1/9 … 0.1, in the middle 0.1/5.
        assert_eq!((figures.kld_max, figures.kld_p50), (0.1, 0.02));
        assert!((figures.top1_agreement - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(figures.bits_per_value, 5.0);
        assert!(!json.contains("mean") && !json.contains("ci95") && !json.contains("verdict"));
    }

    /// What was once called fp8-e4m3 is fp8-e4m3-per-tensor, with the id that it had.
    #[test]
    fn lines_of_former_names_are_what_they_were() {
        let of = |subject: &str, codec: &str| short(format!("{subject} {codec}").as_bytes());
        let mut json = serde_json::to_value(CellLine::done(name(), measurement())).unwrap();
        let subject_id = json["subject_id"].as_str().unwrap().to_string();
        for (former, today) in [
            ("fp8-e4m3", "fp8-e4m3-per-tensor"),
            ("k:fp8-e5m2/v:f16", "k:fp8-e5m2-per-tensor/v:f16"),
            ("noise-fp8-e4m3", "noise-fp8-e4m3-per-tensor"),
            ("int4-g64", "int4-g64"),
        ] {
            json["schema"] = CELL_OF_FORMER_NAMES.into();
            json["codec"] = former.into();
            json["measured"]["codec"] = former.into();
            json["id"] = of(&subject_id, former).into();
            let read = CellRecord::read(&json.to_string()).unwrap();
            assert_eq!(read.cell.codec, today);
            let result = done(read);
            assert_eq!(
                (&result.figures.codec[..], &result.id),
                (today, &cell_id(&subject_id, today, FloatType::F32))
            );
            // A line of today with that name is of another codec, and has another id.
            json["schema"] = CELL.into();
            let read = CellRecord::read(&json.to_string());
            assert_eq!(read.is_ok(), former == today, "{former}");
            json["id"] = cell_id(&subject_id, former, FloatType::F32).into();
            assert_eq!(done(CellRecord::read(&json.to_string()).unwrap()).figures.codec, former);
        }
        let mut failed = serde_json::to_value(CellLine::failed(
            PlannedCell { name: name(), id: None, refused: None },
            &Error::input("no"),
        ))
        .unwrap();
        failed["codec"] = "fp8-e5m2".into();
        failed["schema"] = CELL_OF_FIGURES.into();
        let read = CellRecord::read(&failed.to_string()).unwrap();
        assert_eq!(read.cell.codec, "fp8-e5m2-per-tensor");
    }

    /// A field that another version adds is passed over at every level, one that it lacks has its default, and
    /// another version's name is told.
    #[test]
    fn other_versions_cost_no_cell() {
        let line = CellLine::done(name(), measurement());
        let json = serde_json::to_value(&line).unwrap();
        let expected = line.into_record();
        let levels = ["", "/subject", "/subject/model", "/measured", "/measured/windows/1"];
        for level in levels {
            let mut more = json.clone();
            more.pointer_mut(level).unwrap()["entropy_per_target"] = serde_json::json!([0.5]);
            assert_eq!(CellRecord::read(&more.to_string()).unwrap(), expected, "{level}");
        }
        let mut fewer = json.clone();
        fewer["subject"].as_object_mut().unwrap().remove("seed").unwrap();
        let windows = fewer["measured"]["windows"].as_array_mut().unwrap();
        for window in windows {
            window.as_object_mut().unwrap().remove("targets_affected").unwrap();
        }
        assert_eq!(CellRecord::read(&fewer.to_string()).unwrap(), expected);
        let mut newer = json.clone();
        newer["schema"] = "kvgauge.sweep-cell/9".into();
        let version = Rejected::Version("kvgauge.sweep-cell/9".into());
        assert_eq!(CellRecord::read(&newer.to_string()), Err(version));
        // Lines that contradict themselves, or lack a field that figures need.
        for (pointer, value) in [
            ("/id", serde_json::json!("0000000000000000")),
            ("/subject/seed", serde_json::json!(9)),
            ("/measured/windows/0/same_top", serde_json::json!("11")),
            ("/measured/windows/0/layers", serde_json::json!([])),
            ("/baseline", serde_json::json!([])),
            ("/baseline/0", serde_json::json!([1.0, 2.0])),
        ] {
            let mut odd = json.clone();
            *odd.pointer_mut(pointer).unwrap() = value;
            let read = CellRecord::read(&odd.to_string());
            assert!(matches!(read, Err(Rejected::Content(_))), "{pointer}: {read:?}");
        }
    }
}
