//! What a command works with: the configuration, the state folder, the clock, and where results go.

use std::path::{Path, PathBuf};

use castra_core::Timestamp;
use castra_store::{KeyFiles, State, StateDir};

use crate::{
    cli::Global,
    config::{Config, Loaded, Tls},
    out::{Failure, Out},
};

pub(crate) struct Context {
    pub(crate) loaded: Loaded,
    pub(crate) out: Out,
    pub(crate) now: Timestamp,
}

/// An opened state folder.
pub(crate) struct Opened {
    pub(crate) keys: KeyFiles,
    pub(crate) state: State,
}

impl Context {
    /// Reads the configuration that the command line names.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let loaded = load(global).map_err(|failure| {
            failure.advise("Mend it, or name the state folder with --state to work without the file.")
        })?;
        Ok(Self { loaded, out: Out::new(global.json), now: castra_store::clock::now() })
    }

    /// As [`Self::new`], for a command that writes the configuration: the named file need not be there yet.
    pub(crate) fn to_write(global: &Global) -> Result<Self, Failure> {
        match &global.config {
            Some(file) if !file.exists() => {
                let folder = file.parent().unwrap_or(Path::new(""));
                let mut loaded = Config::without_file(folder);
                if let Some(state) = &global.state {
                    loaded.config.state.dir.clone_from(state);
                }
                Ok(Self { loaded, out: Out::new(global.json), now: castra_store::clock::now() })
            }
            _ => Self::new(global),
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.loaded.config
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.config().state.dir
    }

    /// Opens the state folder, making it if it is not there.
    pub(crate) fn open_or_create(&self) -> Result<Opened, Failure> {
        self.opened(StateDir::open_or_create(self.state_dir())?)
    }

    /// Opens a state folder that must be there.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        let path = self.state_dir();
        if !path.exists() {
            let what = format!("there is no state folder {}", path.display());
            return Err(
                Failure::new(what).advise("Run `castra up` once, or say which with --state or --config.")
            );
        }
        self.opened(StateDir::open(path)?)
    }

    fn opened(&self, dir: StateDir) -> Result<Opened, Failure> {
        let keys = dir.keys(self.now)?;
        let state = dir.state(keys.master.clone())?;
        Ok(Opened { keys, state })
    }

    /// The URL under which this machine reaches the gate, without a slash at its end.
    pub(crate) fn gate_url(&self) -> String {
        let gate = &self.config().gate;
        base_url(&gate.tls(), gate.listen)
    }
}

/// `http` or `https` with an address that a client can connect to.
pub(crate) fn base_url(tls: &Tls, listen: std::net::SocketAddr) -> String {
    let scheme = if *tls == Tls::Off { "http" } else { "https" };
    let mut address = listen;
    if address.ip().is_unspecified() {
        // "All addresses" is nothing to connect to.
        let v6 = address.is_ipv6();
        address.set_ip(if v6 {
            std::net::Ipv6Addr::LOCALHOST.into()
        } else {
            std::net::Ipv4Addr::LOCALHOST.into()
        });
    }
    format!("{scheme}://{address}")
}

fn load(global: &Global) -> Result<Loaded, Failure> {
    let Some(state) = &global.state else {
        return Ok(Config::load(global.config.as_deref(), Path::new(""))?);
    };
    // A state folder may hold its own configuration, as the demo's does; without one the policies
    // stand in it too, so that it is complete in itself.
    let beside: Option<PathBuf> = Some(state.join(Config::FILE)).filter(|file| file.exists());
    let mut loaded = match global.config.as_deref().or(beside.as_deref()) {
        Some(file) => Config::load(Some(file), Path::new(""))?,
        None => Config::load(None, state)?,
    };
    loaded.config.state.dir.clone_from(state);
    Ok(loaded)
}
