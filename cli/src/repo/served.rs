//! Which repository a verb reads: a folder in any layout of the real tools, or what a server of this desk serves.

use std::path::PathBuf;

use colibri_common::{Clock, SystemClock};
use colibri_repository::{RepositorySource, sources};

use super::server::ServerError;
use super::server::instances::{Instance, Instances};
use super::{FilesError, RepoError};

/// Arguments of verbs that read a repository.
#[derive(Debug, Default, clap::Args)]
pub struct Where {
    /// The repository's folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["repository", "port"])]
    pub repo_path: Option<PathBuf>,
    /// A repository that a running `repo server` serves: its name, or the server's. May be left out where only one runs
    #[arg(short, long, value_name = "NAME")]
    pub repository: Option<String>,
    /// The port of that server
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// Where running servers are recorded; default is as for `repo server`
    #[arg(long, value_name = "DIR", env = "COLIBRI_SERVERS_DIR", hide_env_values = true)]
    pub servers_dir: Option<PathBuf>,
}

impl Where {
    /// The repository that is meant; what a client would refuse by now is an error.
    pub fn source(&self) -> Result<RepositorySource, RepoError> {
        let source = self.found()?;
        source.trusted_at(SystemClock.now())?;
        Ok(source)
    }

    fn found(&self) -> Result<RepositorySource, RepoError> {
        let Some(dir) = &self.repo_path else { return Ok(self.served()?.1) };
        let mut found = sources(dir)?;
        match (found.pop(), found.is_empty()) {
            (Some(source), true) => Ok(source),
            _ => {
                let reason = format!(
                    "{} is a product bundle with several repositories: import one with `repo import --repository NAME`",
                    dir.display()
                );
                Err(FilesError::Usage(reason).into())
            }
        }
    }

    /// The repository that a server here serves, and that server.
    pub fn served(&self) -> Result<(Instance, RepositorySource), RepoError> {
        let instances = Instances::open(self.servers_dir.clone())?;
        let mut running = instances.running()?;
        running.retain(|instance| self.port.is_none_or(|port| instance.is_at(port)));
        if let Some(name) = &self.repository {
            let serves = |instance: &Instance| instance.repositories.iter().any(|served| served.name == *name);
            let is_called = |instance: &Instance| instance.name == *name;
            // A server's own name decides before what others serve under it.
            let any_called = running.iter().any(is_called);
            running.retain(|instance| is_called(instance) || (!any_called && serves(instance)));
        }
        let instance = match running.len() {
            0 => return Err(ServerError::NothingServed { asked: self.asked() }.into()),
            1 => running.remove(0),
            several => return Err(ServerError::Several(several).into()),
        };
        let mut found = match &instance.product_bundle {
            Some(bundle) => sources(bundle)?,
            None => instance.repositories.first().map_or_else(|| Ok(Vec::new()), |served| sources(&served.path))?,
        };
        if found.len() > 1 {
            found.retain(|source| source.name.is_some() && source.name == self.repository);
        }
        if let Some(source) = found.pop() {
            return Ok((instance, source));
        }
        let names = instance.repositories.iter().map(|served| served.name.clone()).collect::<Vec<_>>().join(", ");
        Err(ServerError::SeveralServed { server: instance.name, names }.into())
    }

    /// What was asked for, in words.
    fn asked(&self) -> String {
        match (&self.repository, self.port) {
            (Some(name), Some(port)) => format!("{name} at port {port}"),
            (Some(name), None) => name.clone(),
            (None, Some(port)) => format!("anything at port {port}"),
            (None, None) => "anything".to_owned(),
        }
    }
}
