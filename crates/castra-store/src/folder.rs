//! The state folder: its rights, its locks, and the key files in it.
//!
//! | file | what | mode |
//! |---|---|---|
//! | `castra.db` | agents, tokens, catalogue, wrapped data keys | 600 |
//! | `master.key` | wraps the data keys | 600 |
//! | `log.key`, `log.vkey` | signs the log; checks it | 600, 644 |
//! | `token.key` | signs what the gate says of agents to peers | 600 |
//! | `ca.key`, `ca.pem` | the built-in CA | 600, 644 |
//! | `server.pem` | the gate's own key and certificate | 600 |
//! | `log/`, `journal/` | the log and what is not yet in it | 700 |

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use castra_core::Timestamp;
use castra_identity::{
    Authority,
    certificate::{self, Curve},
};
use castra_protect::MasterKey;
use zeroize::{Zeroize, Zeroizing};

use crate::{
    State, StoreError, clock,
    files::{create_folder, read_secret, read_text, remove, write_atomic},
};

/// Largest key or certificate file.
const KEY_BYTES_MAX: u64 = 64 << 10;
/// Days that the gate's own certificate is good for.
const SERVER_LIFE_DAYS: u32 = 90;
/// It is made anew when this many days are left.
const SERVER_RENEWAL_DAYS: i64 = 30;
const CERTIFICATE_BEGINS: &str = "-----BEGIN CERTIFICATE-----";

/// A state folder whose rights were checked.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Held by the one gate that runs on a state folder; given back when dropped or when the process
/// ends, however it ends. Commands work beside it.
#[derive(Debug)]
pub struct GateLock {
    _file: File,
}

/// The keys of an installation.
pub struct KeyFiles {
    /// Wraps data keys.
    pub master: MasterKey,
    /// Seed of the log's Ed25519 key.
    pub log_seed: Zeroizing<[u8; 32]>,
    /// The built-in CA.
    pub authority: Authority,
}

impl fmt::Debug for KeyFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFiles(hidden)")
    }
}

/// The gate's own certificate.
pub struct ServerCertificate {
    /// Its certificate and that of the CA.
    pub chain_pem: String,
    /// Its private key.
    pub key_pem: Zeroizing<String>,
    /// When it ends.
    pub not_after: Timestamp,
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServerCertificate(until {})", self.not_after)
    }
}

impl StateDir {
    /// Opens a state folder, and makes it for nobody else to read if it is not there.
    pub fn open_or_create(path: &Path) -> Result<Self, StoreError> {
        create_folder(path, 0o700)?;
        Self::open(path)
    }

    /// Opens a state folder that must be there.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let metadata = fs::metadata(path).map_err(|_| StoreError::NoFolder { path: path.to_owned() })?;
        if !metadata.is_dir() {
            return Err(StoreError::NoFolder { path: path.to_owned() });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o022 != 0 {
            return Err(StoreError::FolderWritable { path: path.to_owned(), mode });
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the public part of the log is.
    pub fn log_dir(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Claims the folder for a gate.
    pub fn lock_gate(&self) -> Result<GateLock, StoreError> {
        let path = self.path.join("gate.lock");
        let mut file = open_lock(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.take(20).read_to_string(&mut holder).is_ok() && !holder.trim().is_empty();
                let holder = if known { holder.trim().to_owned() } else { "unknown".to_owned() };
                return Err(StoreError::GateRuns { path: self.path.clone(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(StoreError::io("locked", &path)(e)),
        }
        let said = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        said.map_err(StoreError::io("written", &path))?;
        Ok(GateLock { _file: file })
    }

    /// Reads the keys, and makes those of a new folder. A key that is missing although something
    /// was made with it is not replaced in silence.
    pub fn keys(&self, now: Timestamp) -> Result<KeyFiles, StoreError> {
        let _setup = self.lock_setup()?;
        let database = self.path.join(State::FILE);
        let logged = self.log_dir().join("checkpoint");
        Ok(KeyFiles {
            master: MasterKey::new(*self.random_key("master.key", &database, "the state database")?),
            log_seed: self.random_key("log.key", &logged, "the log")?,
            authority: self.authority(now)?,
        })
    }

    /// Seed of the Ed25519 key that signs what the gate says of agents to peers. Whoever verifies its
    /// tokens fetches the public key, so one that is lost can be made anew.
    pub fn token_seed(&self) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let _setup = self.lock_setup()?;
        self.random_key("token.key", Path::new(""), "the gate's tokens")
    }

    /// Opens the database, and brings it up to date.
    pub fn state(&self, master: MasterKey) -> Result<State, StoreError> {
        let _setup = self.lock_setup()?;
        State::open(&self.path.join(State::FILE), master)
    }

    /// The gate's certificate for these DNS names and addresses, made anew when there is none, when
    /// it ends soon, or when the names changed.
    pub fn server_certificate(
        &self,
        authority: &Authority,
        names: &[String],
        now: Timestamp,
    ) -> Result<ServerCertificate, StoreError> {
        let _setup = self.lock_setup()?;
        let path = self.path.join("server.pem");
        if path.exists() {
            let text = secret_text(&path)?;
            let facts = certificate::read_server(&text)?;
            let lasts = facts.not_after > now.plus_secs(SERVER_RENEWAL_DAYS * 86_400);
            if lasts && facts.names == names.iter().map(|name| plain_name(name)).collect::<BTreeSet<_>>() {
                return split_server(&path, &text, facts.not_after);
            }
        }
        let issued = authority.issue_server(names, now, SERVER_LIFE_DAYS, clock::random()?)?;
        let text = Zeroizing::new(
            [issued.key_pem.as_str(), &issued.certificate_pem, authority.certificate_pem()].concat(),
        );
        write_atomic(&path, text.as_bytes(), 0o600)?;
        split_server(&path, &text, issued.not_after)
    }

    /// Writes a public file into the folder, such as the log's verifier key, unless it says the
    /// same already.
    pub fn publish(&self, file: &str, text: &str) -> Result<(), StoreError> {
        let path = self.path.join(file);
        if path.exists() && read_text(&path, KEY_BYTES_MAX)? == text {
            return Ok(());
        }
        write_atomic(&path, text.as_bytes(), 0o644)
    }

    /// Two processes that start at once must not both make keys.
    fn lock_setup(&self) -> Result<File, StoreError> {
        let path = self.path.join("setup.lock");
        let file = open_lock(&path)?;
        file.lock().map_err(StoreError::io("locked", &path))?;
        Ok(file)
    }

    /// 32 random bytes in a file. `witness` exists once the key was used.
    fn random_key(
        &self,
        file: &str,
        witness: &Path,
        what: &'static str,
    ) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let path = self.path.join(file);
        if path.exists() {
            let bytes = Zeroizing::new(read_secret(&path, KEY_BYTES_MAX)?);
            let reason = || format!("it has {} bytes, and a key has 32", bytes.len());
            let key: [u8; 32] =
                bytes.as_slice().try_into().map_err(|_| StoreError::BadKey { path, reason: reason() })?;
            return Ok(Zeroizing::new(key));
        }
        if witness.exists() {
            return Err(StoreError::KeyLost { path, what });
        }
        let mut bytes = clock::random()?;
        write_atomic(&path, &bytes, 0o600)?;
        let key = Zeroizing::new(bytes);
        bytes.zeroize();
        Ok(key)
    }

    fn authority(&self, now: Timestamp) -> Result<Authority, StoreError> {
        let (key_path, path) = (self.path.join("ca.key"), self.path.join("ca.pem"));
        match (key_path.exists(), path.exists()) {
            (true, true) => {
                let key = Zeroizing::new(secret_text(&key_path)?);
                let certificate = read_text(&path, KEY_BYTES_MAX)?;
                Authority::load(&certificate, &key)
                    .map_err(|e| StoreError::BadKey { path: key_path, reason: e.to_string() })
            }
            (false, true) => Err(StoreError::KeyLost { path: key_path, what: "the certificates of agents" }),
            // A key alone is what a crash between the two files leaves: it has issued nothing.
            (_, false) => {
                let made = certificate::create_authority("Castra CA", Curve::P256, now, clock::random()?)?;
                remove(&self.path.join("server.pem"))?;
                write_atomic(&key_path, made.key_pem.as_bytes(), 0o600)?;
                write_atomic(&path, made.certificate_pem.as_bytes(), 0o644)?;
                Ok(Authority::load(&made.certificate_pem, &made.key_pem)?)
            }
        }
    }
}

fn open_lock(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(StoreError::io("opened", path))
}

fn secret_text(path: &Path) -> Result<String, StoreError> {
    String::from_utf8(read_secret(path, KEY_BYTES_MAX)?)
        .map_err(|_| StoreError::NotText { path: path.to_owned() })
}

/// A name as a certificate writes it: addresses in their one form, without brackets.
fn plain_name(name: &str) -> String {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().map_or_else(|_| name.to_owned(), |ip| ip.to_string())
}

fn split_server(path: &Path, text: &str, not_after: Timestamp) -> Result<ServerCertificate, StoreError> {
    let at = text.find(CERTIFICATE_BEGINS).filter(|at| *at > 0);
    let (key, chain) = at.and_then(|at| text.split_at_checked(at)).ok_or_else(|| StoreError::BadKey {
        path: path.to_owned(),
        reason: "it should hold a key and then certificates; remove it to have it made anew".to_owned(),
    })?;
    Ok(ServerCertificate { chain_pem: chain.to_owned(), key_pem: Zeroizing::new(key.to_owned()), not_after })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_557_868_000_000);

    fn folder() -> (tempfile::TempDir, StateDir) {
        let root = tempfile::tempdir().expect("folder");
        let dir = StateDir::open_or_create(&root.path().join("deep/state")).expect("made");
        (root, dir)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    }

    #[test]
    fn keys_are_made_once_and_for_nobody_else() {
        let (_root, dir) = folder();
        let first = dir.keys(NOW).expect("made");
        dir.state(first.master.clone()).expect("database");
        let again = dir.keys(NOW).expect("read");
        assert_eq!(first.log_seed, again.log_seed);
        assert_eq!(first.authority.certificate_pem(), again.authority.certificate_pem());
        assert_eq!(mode(dir.path()), 0o700);
        for secret in ["master.key", "log.key", "ca.key", "castra.db", "setup.lock"] {
            assert_eq!(mode(&dir.path().join(secret)), 0o600, "{secret}");
        }
        assert_eq!(mode(&dir.path().join("ca.pem")), 0o644);
        dir.publish("log.vkey", "text").expect("published");
        assert_eq!(mode(&dir.path().join("log.vkey")), 0o644);
    }

    #[test]
    fn loose_rights_are_refused_with_advice() {
        let (_root, dir) = folder();
        dir.keys(NOW).expect("made");
        let master = dir.path().join("master.key");
        set_mode(&master, 0o640);
        let refused = dir.keys(NOW).expect_err("readable");
        assert!(matches!(refused, StoreError::SecretReadable { mode: 0o640, .. }));
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
        set_mode(&master, 0o600);
        set_mode(dir.path(), 0o777);
        let refused = StateDir::open(dir.path()).expect_err("writable");
        assert!(refused.to_string().contains("chmod 700"), "{refused}");
        assert!(matches!(StateDir::open(&dir.path().join("none")), Err(StoreError::NoFolder { .. })));
    }

    #[test]
    fn lost_keys_are_not_replaced() {
        let (_root, dir) = folder();
        let keys = dir.keys(NOW).expect("made");
        dir.state(keys.master.clone()).expect("database");
        fs::remove_file(dir.path().join("master.key")).expect("removed");
        assert!(matches!(dir.keys(NOW), Err(StoreError::KeyLost { what: "the state database", .. })));
        let (_root, dir) = folder();
        dir.keys(NOW).expect("made");
        fs::remove_file(dir.path().join("ca.key")).expect("removed");
        assert!(matches!(dir.keys(NOW), Err(StoreError::KeyLost { .. })));
        fs::write(dir.path().join("log.key"), [1; 31]).expect("written");
        assert!(matches!(dir.keys(NOW), Err(StoreError::BadKey { .. })));
    }

    #[test]
    fn one_gate_at_a_time() {
        let (_root, dir) = folder();
        let lock = dir.lock_gate().expect("free");
        let refused = dir.lock_gate().expect_err("taken");
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        dir.keys(NOW).expect("commands work beside it");
        drop(lock);
        dir.lock_gate().expect("free again");
    }

    #[test]
    fn the_server_certificate_follows_names_and_time() {
        let (_root, dir) = folder();
        let keys = dir.keys(NOW).expect("made");
        let make = |names: &[&str], now| {
            let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
            dir.server_certificate(&keys.authority, &names, now).expect("made")
        };
        let first = make(&["localhost", "[::1]", "127.0.0.1"], NOW);
        assert!(
            first.chain_pem.matches(CERTIFICATE_BEGINS).count() == 2 && first.key_pem.contains("PRIVATE KEY")
        );
        assert_eq!(make(&["127.0.0.1", "localhost", "::1"], NOW).chain_pem, first.chain_pem);
        let other = make(&["gate.example"], NOW);
        assert_ne!(other.chain_pem, first.chain_pem);
        let later = make(&["gate.example"], NOW.plus_secs(61 * 86_400));
        assert!(later.not_after > other.not_after);
    }
}
