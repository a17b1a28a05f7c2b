//! The few ways in which Castra reads and writes files: bounded reads, atomic writes, and stamps
//! that tell whether something changed.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use crate::{StoreError, clock};

/// Most files of a policy folder; one file holds as many policies as one likes.
pub const POLICY_FILES_MAX: usize = 4096;
/// Largest policy file: 100,000 policies have about 15 MB.
pub const POLICY_BYTES_MAX: u64 = 64 << 20;
/// Entries of a folder that count for its stamp.
const STAMPED_ENTRIES_MAX: usize = 10_000;

/// Reads a file of at most `max` bytes.
pub fn read_bytes(path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    let file = File::open(path).map_err(StoreError::io("opened", path))?;
    let mut bytes = Vec::new();
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > max {
        let bytes = fs::metadata(path).map_or(bytes.len() as u64, |m| m.len());
        return Err(StoreError::TooLarge { path: path.to_owned(), bytes, max });
    }
    Ok(bytes)
}

/// Reads a UTF-8 file of at most `max` bytes.
pub fn read_text(path: &Path, max: u64) -> Result<String, StoreError> {
    String::from_utf8(read_bytes(path, max)?).map_err(|_| StoreError::NotText { path: path.to_owned() })
}

/// Reads a file that must be there and that nobody else may read.
pub(crate) fn read_secret(path: &Path, max: u64) -> Result<Vec<u8>, StoreError> {
    let mode = fs::metadata(path).map_err(StoreError::io("opened", path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::SecretReadable { path: path.to_owned(), mode });
    }
    read_bytes(path, max)
}

/// Writes a file so that a reader, or a crash at any instant, sees the old content or the new and
/// nothing between: a temporary file beside it, synced, renamed over it, and the folder synced. A
/// symbolic link is followed, so that it stays one.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = target.file_name().unwrap_or(OsStr::new("file")).to_string_lossy();
    let random = u64::from_le_bytes(clock::random::<8>()?);
    let temporary = folder.join(format!(".{name}.{random:016x}.tmp"));
    let written = write_new(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, &target).map_err(StoreError::io("replaced", &target)));
    if written.is_err() {
        // It may not even be there; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(folder)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(StoreError::io("made", path))?;
    // The process's umask may have taken rights away that were asked for.
    file.set_permissions(Permissions::from_mode(mode)).map_err(StoreError::io("given its rights", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(StoreError::io("written", path))
}

/// A rename is durable once its folder is.
fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(StoreError::io("synced", folder))
}

/// Makes a folder with its parents; one that is there already is left as it is.
pub fn create_folder(path: &Path, mode: u32) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(mode).create(path).map_err(StoreError::io("made", path))
}

/// Removes a file; one that is not there is fine.
pub fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StoreError::io("removed", path)(e)),
        _ => Ok(()),
    }
}

/// A policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// Its name within the folder.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// Reads the `*.cedar` files of a folder, sorted by name; hidden files and subfolders are passed
/// over. A symbolic link may lead to a place within the folder (as mounted configuration maps do),
/// not out of it: what decides who may do what must stand where it is looked for.
pub fn read_policy_folder(dir: &Path) -> Result<Vec<PolicyFile>, StoreError> {
    let root = fs::canonicalize(dir).map_err(StoreError::io("opened", dir))?;
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("listed", dir))? {
        let name = entry.map_err(StoreError::io("listed", dir))?.file_name();
        let name = name.into_string().map_err(|name| StoreError::NotText { path: dir.join(name) })?;
        if name.ends_with(".cedar") && !name.starts_with('.') {
            names.push(name);
        }
        if names.len() > POLICY_FILES_MAX {
            return Err(StoreError::TooManyPolicies { path: dir.to_owned(), max: POLICY_FILES_MAX });
        }
    }
    names.sort();
    let mut left = POLICY_BYTES_MAX;
    let mut files = Vec::with_capacity(names.len());
    for name in names {
        let path = dir.join(&name);
        let real = fs::canonicalize(&path).map_err(StoreError::io("opened", &path))?;
        if !real.starts_with(&root) {
            return Err(StoreError::PolicyOutside { path });
        }
        let text = read_text(&real, left)?;
        left = left.saturating_sub(text.len() as u64);
        files.push(PolicyFile { name, text });
    }
    Ok(files)
}

/// What files looked like: time of change, length and inode of each, and of the entries of folders.
/// Two stamps that differ mean that something changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stamp(Vec<(PathBuf, Option<FileStamp>)>);

/// Modification time in nanoseconds, length, inode. The inode tells a replaced file apart from one
/// with the same length and time.
type FileStamp = (i128, u64, u64);

/// Takes a stamp of files and folders. What cannot be looked at counts as missing.
pub fn stamp(paths: &[&Path]) -> Stamp {
    let mut stamps = Vec::new();
    for path in paths {
        stamps.push(stamp_of(path.to_path_buf()));
        if let Ok(entries) = fs::read_dir(path) {
            let entries = entries.take(STAMPED_ENTRIES_MAX).filter_map(Result::ok);
            let mut inside: Vec<_> = entries.map(|entry| stamp_of(entry.path())).collect();
            inside.sort();
            stamps.append(&mut inside);
        }
    }
    Stamp(stamps)
}

fn stamp_of(path: PathBuf) -> (PathBuf, Option<FileStamp>) {
    let stamp = fs::metadata(&path)
        .ok()
        .map(|m| (i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec()), m.len(), m.ino()));
    (path, stamp)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn writing_replaces_whole_files_with_their_mode() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"one", 0o600).expect("written");
        write_atomic(&path, b"two", 0o644).expect("written");
        assert_eq!(read_text(&path, 3).expect("read"), "two");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o644);
        assert!(matches!(read_text(&path, 2), Err(StoreError::TooLarge { bytes: 3, max: 2, .. })));
        let link = dir.path().join("link");
        symlink(&path, &link).expect("linked");
        write_atomic(&link, b"three", 0o644).expect("written");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(read_text(&path, 10).expect("read"), "three");
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 2, "no temporary file is left");
        assert!(write_atomic(&dir.path().join("none/a"), b"", 0o600).is_err());
        fs::write(&path, [0xff]).expect("written");
        assert!(matches!(read_text(&path, 10), Err(StoreError::NotText { .. })));
        remove(&path).and_then(|()| remove(&path)).expect("removed, twice");
    }

    #[test]
    fn policies_stay_in_their_folder() {
        let outside = tempfile::tempdir().expect("folder");
        let dir = tempfile::tempdir().expect("folder");
        let write = |path: PathBuf, text: &str| fs::write(path, text).expect("written");
        write(dir.path().join("b.cedar"), "B");
        write(dir.path().join("a.cedar"), "A");
        write(dir.path().join(".hidden.cedar"), "H");
        write(dir.path().join("notes.txt"), "N");
        fs::create_dir(dir.path().join("..data")).expect("made");
        write(dir.path().join("..data/c"), "C");
        symlink(dir.path().join("..data/c"), dir.path().join("c.cedar")).expect("linked");
        let names = |files: Vec<PolicyFile>| files.into_iter().map(|f| f.name + &f.text).collect::<Vec<_>>();
        assert_eq!(
            names(read_policy_folder(dir.path()).expect("read")),
            ["a.cedarA", "b.cedarB", "c.cedarC"]
        );

        write(outside.path().join("x.cedar"), "X");
        symlink(outside.path().join("x.cedar"), dir.path().join("x.cedar")).expect("linked");
        assert!(matches!(read_policy_folder(dir.path()), Err(StoreError::PolicyOutside { .. })));
        assert!(read_policy_folder(&dir.path().join("none")).is_err());
    }

    #[test]
    fn stamps_tell_changes() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("a.cedar");
        let take = || stamp(&[dir.path(), &dir.path().join("castra.toml")]);
        let empty = take();
        write_atomic(&file, b"one", 0o644).expect("written");
        let one = take();
        assert_ne!(empty, one);
        assert_eq!(one, take());
        write_atomic(&file, b"two", 0o644).expect("written");
        assert_ne!(one, take());
        remove(&file).expect("removed");
        write_atomic(&dir.path().join("castra.toml"), b"", 0o644).expect("written");
        assert_ne!(empty, take());
    }
}
