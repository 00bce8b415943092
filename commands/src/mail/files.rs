//! Writes letters to files if no mail server is configured, so that the shop can be tried out. Only
//! the owner can read them.

use super::{Letter, MailError, Mailer, Sender};
use async_trait::async_trait;
use std::{
    fs::{DirBuilder, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use uuid::Uuid;

/// A folder with one subfolder for each customer, so that a customer's letters can be destroyed
/// together.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn of(&self, customer_id: Uuid) -> PathBuf {
        self.0.join(customer_id.to_string())
    }

    /// Writes a letter completely or not at all, and replaces an earlier one with the same name. It
    /// does not sync: a letter lost in a power cut is not worth the wait.
    async fn write(&self, customer_id: Uuid, name: String, text: Vec<u8>) -> io::Result<()> {
        let folder = self.of(customer_id);
        let (mut folders, mut files) = (DirBuilder::new(), File::options());
        folders.recursive(true);
        files.write(true).create(true).truncate(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
            folders.mode(0o700);
            files.mode(0o600);
        }
        let write = move || {
            folders.create(&folder)?;
            let (draft, path) = (folder.join(format!("{name}.part")), folder.join(name));
            files.open(&draft)?.write_all(&text)?;
            std::fs::rename(&draft, &path)
        };
        tokio::task::spawn_blocking(write).await?
    }

    /// Destroys all letters to a customer.
    pub async fn forget(&self, customer_id: Uuid) -> Result<(), MailError> {
        match tokio::fs::remove_dir_all(self.of(customer_id)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(MailError::unavailable(error)),
            _ => Ok(()),
        }
    }
}

/// Writes each letter to `<folder>/<customer id>/<Message-ID>.eml`.
#[derive(Debug)]
pub struct FileMailer {
    folder: Folder,
    sender: Sender,
}

impl FileMailer {
    /// Writes letters from `sender` into `folder`, which is created with the first letter.
    pub fn new(folder: &Path, sender: Sender) -> Self {
        Self { folder: Folder::new(folder), sender }
    }
}

#[async_trait]
impl Mailer for FileMailer {
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError> {
        let id = letter.message_id(self.sender.domain());
        let text = letter.message(&self.sender)?.formatted();
        let written = self.folder.write(letter.customer_id, format!("{id}.eml"), text).await;
        written.map_err(MailError::unavailable)?;
        Ok(id.into())
    }

    async fn forget(&self, customer_id: Uuid) -> Result<(), MailError> {
        self.folder.forget(customer_id).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        aggregate::testing::{at, id},
        order::RefundState,
    };
    use events::order::Mail;

    #[tokio::test]
    async fn a_letter_is_one_file_however_often_it_is_sent_until_its_customer_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("mails");
        let mailer = FileMailer::new(&folder, "orders@localhost".parse().unwrap());
        let letter = Letter {
            mail: Mail::Shipped,
            order_id: id(7),
            customer_id: id(8),
            email: "ada@example.org".into(),
            first_name: "Ada".into(),
            last_name: "Byron".into(),
            priced: None,
            reason: None,
            refund: RefundState::None,
            date: at(0),
            owed_since: at(0),
        };
        mailer.forget(id(8)).await.unwrap();
        let sent = mailer.send(&letter).await.unwrap();
        assert_eq!(mailer.send(&letter).await.unwrap(), sent);
        mailer.send(&Letter { customer_id: id(9), ..letter.clone() }).await.unwrap();
        let theirs = folder.join(id(8).to_string());
        let names: Vec<_> =
            std::fs::read_dir(&theirs).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(names, [format!("{sent}.eml").as_str()]);
        mailer.forget(id(8)).await.unwrap();
        assert!(!theirs.exists() && folder.join(id(9).to_string()).exists());
    }
}
