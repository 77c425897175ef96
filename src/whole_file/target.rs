//! Which file a path leads to, there or not: what a command writes twice, or reads as well, is
//! found before anything is done.

use crate::error::{Error, Result};
use crate::platform::same_file;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// A path, and the flag or the like that named it.
pub type Named<'a> = (&'a str, &'a Path);

/// An error where two of `written` are one file, or one of them is read too, be it as a file of a
/// folder in `read`.
pub fn check_apart(written: &[Named], read: &[Named]) -> Result<()> {
    for (index, (name, path)) in written.iter().enumerate() {
        let earlier = written[..index].iter().find(|(_, other)| same_target(path, other));
        let input = read.iter().find(|(_, at)| same_target(path, at) || lies_in(path, at));
        if let Some((other, _)) = earlier.or(input) {
            let hint = match earlier {
                Some(_) => "give each a name of its own",
                None => "what is read is not written over: choose another name",
            };
            return Err(Error::input(format!(
                "{name}: expected a file other than {other}'s, found {}",
                path.display()
            ))
            .hint(hint));
        }
    }
    Ok(())
}

/// Whether two paths lead to one file, or will once it is written: through links, `.` and `..`,
/// and names that differ in case only where the file system takes them for one.
pub fn same_target(a: &Path, b: &Path) -> bool {
    if same_file(a, b) {
        return true;
    }
    let (Some((a_folder, a_name)), Some((b_folder, b_name))) = (resolved(a), resolved(b)) else {
        return false;
    };
    let same_folder = a_folder == b_folder || same_file(&a_folder, &b_folder);
    same_folder && (a_name == b_name || (lower(&a_name) == lower(&b_name) && folds_case(&a_folder)))
}

/// Folder, without links, and name; `None` for what ends in no name.
fn resolved(path: &Path) -> Option<(PathBuf, OsString)> {
    // A link is what it leads to.
    if let Ok(whole) = path.canonicalize() {
        return Some((whole.parent()?.into(), whole.file_name()?.into()));
    }
    let folder = match path.parent()? {
        folder if folder.as_os_str().is_empty() => Path::new("."),
        folder => folder,
    };
    let folder = folder.canonicalize().or_else(|_| std::path::absolute(folder)).ok()?;
    Some((folder, path.file_name()?.into()))
}

fn lower(name: &OsStr) -> String {
    name.to_string_lossy().to_lowercase()
}

/// Found out with a file that is gone at once.
fn folds_case(folder: &Path) -> bool {
    let probe = tempfile::Builder::new().prefix(".kvgauge-case-").tempfile_in(folder);
    probe.is_ok_and(|probe| {
        let name = probe.path().file_name().map(|name| name.to_string_lossy().to_uppercase());
        name.is_some_and(|name| folder.join(name).exists())
    })
}

/// Whether `path` is a file that is there, directly in `folder`.
fn lies_in(path: &Path, folder: &Path) -> bool {
    let parent = || path.canonicalize().ok()?.parent().map(Path::to_path_buf);
    folder.is_dir() && parent().is_some_and(|parent| same_file(&parent, folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    #[test]
    fn paths_are_compared_by_where_they_lead() {
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/there.json"), "1").unwrap();
        for (a, b, same) in [
            ("a.json", "a.json", true),
            ("a.json", "./a.json", true),
            ("a.json", "real/../a.json", true),
            ("real/a.json", "./real//a.json", true),
            ("real/there.json", "real/./there.json", true),
            ("a.json", "b.json", false),
            ("a.json", "real/a.json", false),
            ("absent/a.json", "absent/./a.json", true),
            ("real", "real/there.json", false),
        ] {
            assert_eq!(same_target(&at(a), &at(b)), same, "{a} and {b}");
            assert_eq!(same_target(&at(b), &at(a)), same, "{b} and {a}");
        }
        let folds = folds_case(folder.path());
        assert_eq!(same_target(&at("a.json"), &at("A.JSON")), folds);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the probe is gone");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed() {
        use std::os::unix::fs::symlink;
        let folder = TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("real")).unwrap();
        fs::write(at("real/there.json"), "1").unwrap();
        symlink("real", at("link")).unwrap();
        symlink("real/there.json", at("file")).unwrap();
        assert!(same_target(&at("link/new.json"), &at("real/new.json")));
        assert!(same_target(&at("file"), &at("link/there.json")));
        assert!(!same_target(&at("file"), &at("link/new.json")));
        let (file, link) = (at("file"), at("link"));
        let error = check_apart(&[("--output", &file)], &[("--model", &link)]).unwrap_err();
        assert!(error.to_string().contains("--output: expected a file other than --model's"));
        // A new file in a folder that is read is nobody's.
        check_apart(&[("--output", &at("link/new.json"))], &[("--model", &link)]).unwrap();
    }
}
