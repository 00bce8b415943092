//! A conversation with a mail server about one letter.
//!
//! What a refusal means depends on what was asked. A refusal of the recipient or of the content is
//! about this letter; any other one (of the connection, the credentials, the sender) is about the
//! server or its settings, and every letter would meet it.

use super::MailError;
use lettre::{
    Message,
    transport::smtp::{
        Error,
        client::AsyncSmtpConnection,
        commands::{Data, Mail, Rcpt},
        extension::{Extension, MailBodyParameter, MailParameter},
    },
};

/// The code of a letter whose recipient's address only servers with SMTPUTF8 understand.
const NO_SMTPUTF8: &str = "no-smtputf8";

/// The code of a letter to which the server's answer has a code that SMTP does not know.
const UNREADABLE: &str = "smtp-unreadable";

/// Hands one letter over.
pub(super) async fn hand_over(
    server: &mut AsyncSmtpConnection,
    message: &Message,
) -> Result<(), MailError> {
    let (envelope, text) = (message.envelope(), message.formatted());
    let parameters = parameters(server, envelope, &text)?;
    let mail = Mail::new(envelope.from().cloned(), parameters);
    server.command(mail).await.map_err(|error| of_server(&error))?;
    for recipient in envelope.to() {
        let recipient = Rcpt::new(recipient.clone(), Vec::new());
        server.command(recipient).await.map_err(|error| of_letter(&error))?;
    }
    server.command(Data).await.map_err(|error| of_letter(&error))?;
    server.message(&text).await.map_err(|error| of_letter(&error))?;
    Ok(())
}

/// The extensions that the letter needs.
fn parameters(
    server: &AsyncSmtpConnection,
    envelope: &lettre::address::Envelope,
    text: &[u8],
) -> Result<Vec<MailParameter>, MailError> {
    let offers = |extension| server.server_info().supports_feature(extension);
    let is_ascii = |address: &lettre::Address| AsRef::<str>::as_ref(address).is_ascii();
    let mut parameters = Vec::new();
    if !envelope.from().is_none_or(is_ascii) && !offers(Extension::SmtpUtfEight) {
        return Err(MailError::unavailable("the server has no SMTPUTF8, which the sender needs"));
    }
    if !envelope.to().iter().chain(envelope.from()).all(is_ascii) {
        if !offers(Extension::SmtpUtfEight) {
            return Err(MailError::Refused(NO_SMTPUTF8.into()));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !text.is_ascii() && offers(Extension::EightBitMime) {
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    Ok(parameters)
}

/// What an answer about the recipient or the content means. Only its code is passed on, because its
/// text may contain the recipient's address.
fn of_letter(error: &Error) -> MailError {
    // An answer that cannot be read, such as 571, is about this letter as well. It may be for good,
    // so the letter is given up in the end.
    if error.is_response() && error.status().is_none() {
        return MailError::PutOff(UNREADABLE.into());
    }
    let Some(code) = error.status().map(u16::from) else { return of_server(error) };
    let named = || format!("smtp-{code}").into();
    match code {
        // The server closes the connection, or wants credentials or encryption first: answers that
        // it may give to any command (RFC 3207, 4954, 5321).
        421 | 454 | 530..=539 => of_server(error),
        400..=499 => MailError::PutOff(named()),
        500..=599 => MailError::Refused(named()),
        _ => of_server(error),
    }
}

/// What any other answer means, or that none came.
pub(super) fn of_server(error: &Error) -> MailError {
    match error.status().map(u16::from) {
        Some(code) => MailError::unavailable(format!("the server answered {code}")),
        // This error comes from the system or from TLS, not from the server.
        None => MailError::unavailable(error.to_string()),
    }
}
