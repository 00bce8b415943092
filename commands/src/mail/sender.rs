//! The sender of letters: the shop's name and address.

use super::{Address, MailError};
use lettre::message::Mailbox;
use std::str::FromStr;

/// A mailbox like `The Book Shop <orders@shop.example>`. Letters show its name as the shop's name,
/// and Message-IDs use the domain of its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    name: Option<String>,
    address: String,
}

/// The text is not a mailbox.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sender must be an address, or a name and an address in angle brackets")]
pub struct SenderError;

impl Sender {
    /// The shop's name; the address's domain if the mailbox has no name.
    pub fn shop(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.domain())
    }

    /// The domain of the address.
    pub fn domain(&self) -> &str {
        self.address.rsplit_once('@').map_or("localhost", |(_, domain)| domain)
    }

    pub(super) fn mailbox(&self) -> Result<Mailbox, MailError> {
        let address = self.address.parse().map_err(MailError::unavailable)?;
        Ok(Mailbox::new(self.name.clone(), address))
    }
}

impl Default for Sender {
    /// A sender for letters that are only written to files.
    fn default() -> Self {
        Self { name: Some("orderlog".to_owned()), address: "orders@localhost".to_owned() }
    }
}

impl FromStr for Sender {
    type Err = SenderError;

    fn from_str(text: &str) -> Result<Self, SenderError> {
        let Mailbox { name, email } = text.trim().parse().map_err(|_| SenderError)?;
        let address: Address = email.to_string().parse().map_err(|_| SenderError)?;
        Ok(Self { name, address: address.mailable().to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_a_name_and_an_address_or_an_address() {
        let shop: Sender = "The Book Shop <orders@shop.example>".parse().unwrap();
        assert_eq!((shop.shop(), shop.domain()), ("The Book Shop", "shop.example"));
        let bare: Sender = "orders@localhost".parse().unwrap();
        assert_eq!(bare.shop(), "localhost");
        let abroad: Sender = "orders@bücher.example".parse().unwrap();
        assert_eq!(abroad.domain(), "xn--bcher-kva.example");
        for sender in [shop, bare, Sender::default()] {
            assert!(sender.mailbox().is_ok(), "{sender:?}");
        }
        for text in ["", "shop", "Shop <>", "a@b <c>", "a b@c"] {
            assert_eq!(text.parse::<Sender>(), Err(SenderError), "{text}");
        }
    }
}
