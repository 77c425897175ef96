//! The platform: everything that differs between operating systems.

use crate::large_blocks;
use std::fs::File;
use std::io::{ErrorKind, Result};
use std::path::Path;

/// The most memory this process ever had resident, bytes; `None` where the system does not say.
/// Pages of mapped model files count in.
pub fn peak_rss_bytes() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Memory that can be had without pushing others out, bytes; `None` where the system does not say. In a
/// container, no more than is left of its limit. What this process has freed and kept is given back first.
pub fn free_memory() -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        large_blocks::give_back();
        let free = meminfo("MemAvailable:")?;
        Some(free.min(left_in_container().unwrap_or(u64::MAX)))
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Columns of the terminal that an open file is; `None` where it is none, or the system does not say.
#[cfg(unix)]
pub fn terminal_width(file: impl std::os::fd::AsFd) -> Option<usize> {
    let columns = rustix::termios::tcgetwinsize(file).ok()?.ws_col;
    (columns > 0).then_some(columns.into())
}

/// Columns of the terminal that an open file is: this system is not asked.
#[cfg(not(unix))]
pub fn terminal_width<F>(_: F) -> Option<usize> {
    None
}

/// [`free_memory`], and what can be swapped out, of which a container's share is not known.
pub fn free_memory_and_swap() -> Option<u64> {
    #[cfg(target_os = "linux")]
    let swap = match left_in_container() {
        None => meminfo("SwapFree:").unwrap_or(0),
        Some(_) => 0,
    };
    #[cfg(not(target_os = "linux"))]
    let swap = 0;
    Some(free_memory()?.saturating_add(swap))
}

/// Calls `last_words` where Ctrl-C is pressed, before that ends this process as it always does. Where it is not
/// to be had, Ctrl-C ends the process without words.
pub fn before_interrupt(last_words: impl FnOnce() + Send + 'static) {
    #[cfg(unix)]
    {
        use signal_hook::consts::SIGINT;
        use signal_hook::{flag, low_level};
        use std::io::Read;
        use std::os::unix::net::UnixStream;
        use std::sync::Arc;
        use std::sync::atomic::AtomicBool;
        if ignores_interrupts() {
            return;
        }
        let Ok((mut pressed, write)) = UnixStream::pair() else { return };
        let waiting = std::thread::Builder::new().name("interrupt".into()).spawn(move || {
            if pressed.read_exact(&mut [0]).is_ok() {
                last_words();
                // Whoever started this process sees what ended it.
                _ = low_level::emulate_default_handler(SIGINT);
            }
        });
        if waiting.is_err() || low_level::pipe::register(SIGINT, write).is_err() {
            return;
        }
        // A second Ctrl-C does not wait for the words.
        let once = Arc::new(AtomicBool::new(false));
        _ = flag::register_conditional_default(SIGINT, Arc::clone(&once))
            .and_then(|_| flag::register(SIGINT, once));
    }
    #[cfg(windows)]
    {
        /// What a program ends with that knows nothing of Ctrl-C.
        const STATUS_CONTROL_C_EXIT: u32 = 0xC000_013A;
        let last_words = std::sync::Mutex::new(Some(last_words));
        _ = ctrlc::set_handler(move || {
            let words = last_words.lock().ok().and_then(|mut words| words.take());
            if let Some(words) = words {
                words();
            }
            std::process::exit(STATUS_CONTROL_C_EXIT as i32);
        });
    }
    #[cfg(not(any(unix, windows)))]
    let _ = last_words;
}

/// Whether Ctrl-C is for others: a shell starts what runs in the background so. Other systems than Linux
/// are not asked.
#[cfg(unix)]
fn ignores_interrupts() -> bool {
    #[cfg(target_os = "linux")]
    {
        const SIGINT: u32 = 2;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
        ignored.is_some_and(|signals| signals >> (SIGINT - 1) & 1 == 1)
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Of /proc/meminfo, bytes.
#[cfg(target_os = "linux")]
fn meminfo(key: &str) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = table.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
}

/// Of the limit of a control group (version 2), bytes. Pages of files count as free: the kernel
/// drops them when it needs the memory.
#[cfg(target_os = "linux")]
fn left_in_container() -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let limit = number(&read("memory.max")?)?;
    let used = number(&read("memory.current")?)?;
    let of_files: u64 = read("memory.stat")?
        .lines()
        .filter_map(|line| {
            let (key, value) = line.split_once(' ')?;
            ["active_file", "inactive_file"].contains(&key).then(|| number(value))?
        })
        .sum();
    Some(limit.saturating_sub(used.saturating_sub(of_files)))
}

/// Fills `bytes` from `offset` on; several threads may read one file. A file that ends before
/// that is [`ErrorKind::UnexpectedEof`].
pub fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_read(file, &mut bytes[done..], at) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Writes all of `bytes` from `offset` on; several threads may write to one file.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::write_all_at(file, bytes, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            match std::os::windows::fs::FileExt::seek_write(file, &bytes[done..], at) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Whether two paths lead to one file, through links too.
pub fn same_file(a: &Path, b: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let identity = |path: &Path| path.metadata().ok().map(|found| (found.dev(), found.ino()));
        identity(a).is_some() && identity(a) == identity(b)
    }
    #[cfg(not(unix))]
    {
        let whole = |path: &Path| path.canonicalize().ok();
        whole(a).is_some() && whole(a) == whole(b)
    }
}

/// A file in `folder` that has no name yet and vanishes with this process, however that ends.
/// `Unsupported` where the system or the file system has none.
pub fn unnamed_file(folder: &Path) -> Result<File> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, Mode, OFlags, openat};
        use rustix::io::Errno;
        // The name is given through /proc.
        if !Path::new("/proc/self/fd").is_dir() {
            return Err(ErrorKind::Unsupported.into());
        }
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        // As the umask says, like any new file.
        let mode = Mode::from_raw_mode(0o666);
        match openat(CWD, folder, flags, mode) {
            Ok(file) => Ok(file.into()),
            // The answers of file systems and kernels without it.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                Err(ErrorKind::Unsupported.into())
            }
            Err(e) => Err(e.into()),
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = folder;
        Err(ErrorKind::Unsupported.into())
    }
}

/// Gives a file of [`unnamed_file`] its name; [`ErrorKind::AlreadyExists`] if that is taken.
pub fn name_file(file: &File, path: &Path) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, linkat};
        use std::os::fd::AsRawFd;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(linkat(CWD, link, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (file, path);
        Err(ErrorKind::Unsupported.into())
    }
}

/// Makes a rename in `folder` survive a power cut, where folders can be opened and synced: the
/// file has its name already, and what cannot be done about it is no reason to deny that.
pub fn sync_folder(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {}
        Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {}
        synced => synced?,
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}
