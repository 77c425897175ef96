//! The kind of a file, from its first bytes: for the words of a refusal. A healthy file of another
//! kind must never be called damaged, or people fetch gigabytes for nothing.
//!
//! Pure: bytes in, a [`Kind`] or nothing out. Whoever expects one kind of file asks only after
//! it could not be read as such, or before it reads where a wrong kind would pass unnoticed:
//!
//! ```text
//! {path}: expected UTF-8 text, found {kind.name()}
//! hint: {kind.hint()}
//! ```
//!
//! A text may be HTML or JSON and be meant so: that is the caller's to decide.

/// Bytes from a file's start that tell all there is to tell; fewer will do.
pub const ENOUGH: usize = 4096;

/// The kinds that a file's first bytes give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A pointer that Git leaves in place of a large file that was not fetched.
    LfsPointer,
    Html,
    Xml,
    /// A hub's refusal, saved under the file's name.
    Refusal,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
    SevenZip,
    Tar,
    /// PyTorch's newer files and NumPy's npz are such.
    Zip,
    /// PyTorch's older files are such.
    Pickle,
    Parquet,
    Arrow,
    Hdf5,
    Numpy,
    Pdf,
    Sqlite,
    /// GGUF in little-endian order, which is everybody's.
    Gguf,
    GgufBigEndian,
    /// The formats before GGUF.
    Ggml,
    Safetensors,
    Json,
    /// With or without a byte order mark.
    Utf16,
    Utf32,
    /// Not a byte that is not 0.
    Zeros,
    Empty,
}

/// `start`: the file's first bytes, best [`ENOUGH`] of them, or all it has.
pub fn sniff(start: &[u8]) -> Option<Kind> {
    const MAGICS: [(&[u8], Kind); 27] = [
        (b"version https://git-lfs.github.com/spec/", Kind::LfsPointer),
        (b"version https://hawser.github.com/spec/", Kind::LfsPointer),
        (b"\x1f\x8b", Kind::Gzip),
        (b"\x28\xb5\x2f\xfd", Kind::Zstd),
        (b"\xfd7zXZ\0", Kind::Xz),
        (b"BZh", Kind::Bzip2),
        (b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
        (b"PK\x03\x04", Kind::Zip),
        (b"PK\x05\x06", Kind::Zip),
        (b"\x80\x02", Kind::Pickle),
        (b"\x80\x03", Kind::Pickle),
        (b"\x80\x04\x95", Kind::Pickle),
        (b"\x80\x05\x95", Kind::Pickle),
        (b"PAR1", Kind::Parquet),
        (b"ARROW1", Kind::Arrow),
        (b"\x89HDF\r\n\x1a\n", Kind::Hdf5),
        (b"\x93NUMPY", Kind::Numpy),
        (b"%PDF-", Kind::Pdf),
        (b"SQLite format 3\0", Kind::Sqlite),
        (b"lmgg", Kind::Ggml),
        (b"fmgg", Kind::Ggml),
        (b"tjgg", Kind::Ggml),
        (b"algg", Kind::Ggml),
        // Answers of hubs in place of a file, word for word.
        (b"Entry not found", Kind::Refusal),
        (b"Repository not found", Kind::Refusal),
        (b"Access to model ", Kind::Refusal),
        (b"Invalid username or password", Kind::Refusal),
    ];
    let start = &start[..start.len().min(ENOUGH)];
    if start.is_empty() {
        return Some(Kind::Empty);
    }
    if start.iter().all(|byte| *byte == 0) {
        return Some(Kind::Zeros);
    }
    if let Some(kind) = gguf(start).or_else(|| by_order_mark(start)) {
        return Some(kind);
    }
    // A header's length is what it happens to be, a magic or not: before the magics.
    if is_safetensors(start) {
        return Some(Kind::Safetensors);
    }
    let magic = MAGICS.into_iter().find(|(magic, _)| start.starts_with(magic));
    if let Some((_, kind)) = magic {
        return Some(kind);
    }
    if start.get(257..262) == Some(b"ustar") {
        return Some(Kind::Tar);
    }
    markup(start).or_else(|| is_utf16(start).then_some(Kind::Utf16))
}

/// The magic is written byte by byte, in either order of the rest.
fn gguf(start: &[u8]) -> Option<Kind> {
    let version = start.strip_prefix(b"GGUF")?;
    Some(match version.first_chunk::<4>() {
        Some(bytes) if bytes[..2] == [0, 0] && bytes[2..] != [0, 0] => Kind::GgufBigEndian,
        _ => Kind::Gguf,
    })
}

fn by_order_mark(start: &[u8]) -> Option<Kind> {
    match start {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some(Kind::Utf32),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(Kind::Utf16),
        _ => None,
    }
}

/// The length of a JSON object, and that object.
fn is_safetensors(start: &[u8]) -> bool {
    /// As the safetensors library limits it.
    const MAX_HEADER: u64 = 100_000_000;
    let Some((length, json)) = start.split_first_chunk::<8>() else { return false };
    let length = u64::from_le_bytes(*length);
    (2..=MAX_HEADER).contains(&length) && json.first() == Some(&b'{')
}

fn markup(start: &[u8]) -> Option<Kind> {
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |with: &str| {
        text.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with.as_bytes()))
    };
    let object = |rest: &[u8]| matches!(rest.trim_ascii_start().first(), Some(b'"' | b'}'));
    let list = |rest: &[u8]| matches!(rest.trim_ascii_start().first(), Some(b'"' | b'{' | b']'));
    match text {
        _ if begins("<!doctype html") || begins("<html") => Some(Kind::Html),
        _ if begins("<?xml") => Some(Kind::Xml),
        [b'{', rest @ ..] if object(rest) => Some(Kind::Json),
        [b'[', rest @ ..] if list(rest) => Some(Kind::Json),
        _ => None,
    }
}

/// Without a mark: of the bytes at even, or at odd places, nearly all are the 0 of a character
/// below 256, and of the others nearly none.
fn is_utf16(start: &[u8]) -> bool {
    let (pairs, _) = start.as_chunks::<2>();
    if pairs.len() < 2 {
        return false;
    }
    let zeros = |place: usize| pairs.iter().filter(|pair| pair[place] == 0).count();
    let (most, few) = (pairs.len() * 3 / 4, pairs.len() / 16);
    let (even, odd) = (zeros(0), zeros(1));
    (even > most && odd <= few) || (odd > most && even <= few)
}

impl Kind {
    /// The words after "found".
    pub fn name(self) -> &'static str {
        match self {
            Kind::LfsPointer => "a Git LFS pointer, not the file that it points to",
            Kind::Html => "an HTML page",
            Kind::Xml => "an XML page",
            Kind::Refusal => "a server's refusal in place of the file",
            Kind::Gzip => "a gzip file",
            Kind::Zstd => "a zstd file",
            Kind::Xz => "an xz file",
            Kind::Bzip2 => "a bzip2 file",
            Kind::SevenZip => "a 7z archive",
            Kind::Tar => "a tar archive",
            Kind::Zip => "a zip archive",
            Kind::Pickle => "a Python pickle",
            Kind::Parquet => "a Parquet table",
            Kind::Arrow => "an Arrow table",
            Kind::Hdf5 => "an HDF5 file",
            Kind::Numpy => "a NumPy array",
            Kind::Pdf => "a PDF document",
            Kind::Sqlite => "an SQLite database",
            Kind::Gguf => "a GGUF file",
            Kind::GgufBigEndian => "a GGUF file in big-endian order",
            Kind::Ggml => "a GGML file, the format before GGUF",
            Kind::Safetensors => "a safetensors file",
            Kind::Json => "JSON",
            Kind::Utf16 => "UTF-16",
            Kind::Utf32 => "UTF-32",
            Kind::Zeros => "nothing but zeros",
            Kind::Empty => "an empty file",
        }
    }

    /// The hint, whatever was expected in its place.
    pub fn hint(self) -> &'static str {
        match self {
            Kind::LfsPointer => {
                "run `git lfs pull` in the repository: it puts the file where the pointer is"
            }
            Kind::Html | Kind::Xml | Kind::Refusal => {
                "a server's answer was saved under the file's name: open it to see what it says; a \
                 model behind a licence needs a login, and links to files have /resolve/ in them, not /blob/"
            }
            Kind::Gzip => "unpack it first: gunzip",
            Kind::Zstd => "unpack it first: unzstd",
            Kind::Xz => "unpack it first: unxz",
            Kind::Bzip2 => "unpack it first: bunzip2",
            Kind::SevenZip => "unpack it first: 7z x",
            Kind::Tar => "unpack it first: tar -xf",
            Kind::Zip => {
                "unpack it first; if it is PyTorch's (.bin, .pt), save the model as safetensors \
                 with transformers' save_pretrained"
            }
            Kind::Pickle => {
                "PyTorch's older files are such: save the model as safetensors with transformers' \
                 save_pretrained"
            }
            Kind::Parquet | Kind::Arrow => {
                "it is a table of a data set: write its column of text to a UTF-8 file"
            }
            Kind::Hdf5 => "TensorFlow's weights are such: save the model as safetensors",
            Kind::Numpy => "kvgauge reads no NumPy arrays: save the tensors as safetensors",
            Kind::Pdf => "save its text as a UTF-8 file",
            Kind::Sqlite => "write the text that it holds to a UTF-8 file",
            Kind::Gguf => {
                "a GGUF file is a model: --model takes it, under a name that ends in .gguf"
            }
            Kind::GgufBigEndian => {
                "turn its order round with gguf-py's gguf_convert_endian.py, or take the \
                 little-endian file of the model"
            }
            Kind::Ggml => "convert the original model to GGUF with a current llama.cpp",
            Kind::Safetensors => {
                "safetensors hold a model's tensors: --model takes the folder with its config.json"
            }
            Kind::Json => "is it the file that was meant?",
            Kind::Utf16 => {
                "convert it to UTF-8: iconv -f UTF-16 -t UTF-8 (UTF-16LE without a byte order mark)"
            }
            Kind::Utf32 => "convert it to UTF-8: iconv -f UTF-32 -t UTF-8",
            Kind::Zeros => {
                "a download that was not finished leaves such a file: let it finish, then run again"
            }
            Kind::Empty => "the file has no bytes: was its copy or download cut short?",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let utf16 =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let big =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_be_bytes).collect() };
        let safetensors = [&9u64.to_le_bytes()[..], b"{\"a\":{}} "].concat();
        // A header whose length looks like gzip.
        let gzip_length = [&0x8b1fu64.to_le_bytes()[..], b"{\"a\":"].concat();
        let tar = [&[b'a'; 257][..], b"ustar\0"].concat();
        for (bytes, kind) in [
            (&b""[..], Kind::Empty),
            (&[0; 9], Kind::Zeros),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:3b\n", Kind::LfsPointer),
            (b"<!DOCTYPE html><html>", Kind::Html),
            (b"\xef\xbb\xbf \n<HTML lang=en>", Kind::Html),
            (b"<?xml version=\"1.0\"?><Error>", Kind::Xml),
            (b"Entry not found", Kind::Refusal),
            (b"\x1f\x8b\x08\0", Kind::Gzip),
            (b"PK\x03\x04", Kind::Zip),
            (b"\x80\x02}q\0", Kind::Pickle),
            (b"PAR1\x15\x04", Kind::Parquet),
            (&tar, Kind::Tar),
            (b"GGUF\x03\0\0\0", Kind::Gguf),
            (b"GGUF\0\0\0\x03", Kind::GgufBigEndian),
            (b"GGUF", Kind::Gguf),
            (b"tjgg\x03\0\0\0", Kind::Ggml),
            (&safetensors, Kind::Safetensors),
            (&gzip_length, Kind::Safetensors),
            (b"{\n  \"architectures\": []", Kind::Json),
            (&utf16("It was the best of times"), Kind::Utf16),
            (&big("It was the best of times"), Kind::Utf16),
            (b"\xff\xfeI\0", Kind::Utf16),
            (b"\xff\xfe\0\0I\0\0\0", Kind::Utf32),
        ] {
            assert_eq!(sniff(bytes), Some(kind), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn plain_text_is_nothing_special() {
        for text in [
            "It was the best of times",
            " = Robert Boulter = \n",
            "{curly} text",
            "[1] See",
            "größe",
            "PKzip was a program",
            "a\0b",
            "x",
        ] {
            assert_eq!(sniff(text.as_bytes()), None, "{text}");
        }
    }

    /// Hints are one line, and none sends anybody to fetch a healthy file again.
    #[test]
    fn hints_are_one_line() {
        for byte in 0..=255u8 {
            for kind in
                [sniff(&[byte]), sniff(&[byte, 0, 0, 0, 0]), sniff(&[b'G', b'G', b'U', b'F', byte])]
            {
                let Some(kind) = kind else { continue };
                assert!(!kind.hint().contains('\n') && !kind.name().contains('\n'));
                assert!(!kind.hint().contains("again") || kind == Kind::Zeros);
            }
        }
    }
}
