//! A conversation with a mail server about one letter.
//!
//! What a refusal means depends on what was asked. A refusal of the recipient or of the content is
//! about this letter; any other one (of the connection, the credentials, the sender) is about the
//! server or its settings, and every letter would meet it.

use super::MailError;
use futures::FutureExt;
use lettre::{Message, address::Envelope};
use mail_send::SmtpClient;
use smtp_proto::{EXT_8BIT_MIME, EXT_SMTP_UTF8};
use std::time::Duration;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The code of a letter whose recipient's address only servers with SMTPUTF8 understand.
const NO_SMTPUTF8: &str = "no-smtputf8";

/// The code of a letter to which the server gave an answer that is none of SMTP.
const UNREADABLE: &str = "smtp-unreadable";

/// The most bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// A connection of any kind.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Wire for T {}

/// A connection on which letters can be handed over.
pub(super) struct Session {
    client: SmtpClient<Box<dyn Wire>>,
    /// The extensions of SMTP that the server has.
    extensions: u32,
    /// The server has said more than it was asked, and its next answer may be an old one.
    out_of_step: bool,
}

/// The server's answer to a command.
#[derive(Clone, Copy)]
enum Answer {
    /// It has this code.
    Code(u16),
    /// It has none.
    Unreadable,
}

impl Session {
    pub fn new(client: SmtpClient<Box<dyn Wire>>, extensions: u32) -> Self {
        Self { client, extensions, out_of_step: false }
    }

    /// Whether the connection is still good for another letter.
    pub async fn is_alive(&mut self) -> bool {
        // Nothing is asked, so whatever can be read is too much: an answer, or the end.
        self.out_of_step |= self.client.stream.read(&mut [0]).now_or_never().is_some();
        if self.out_of_step {
            return false;
        }
        let answer = self.command("NOOP").await;
        matches!(answer, Ok(Answer::Code(200..=299))) && !self.out_of_step
    }

    /// Ends the conversation. Nothing depends on the answer.
    pub async fn end(mut self) {
        let _ = self.command("QUIT").await;
    }

    /// Hands one letter over.
    pub async fn hand_over(&mut self, message: &Message) -> Result<(), MailError> {
        let (envelope, text) = (message.envelope(), message.formatted());
        let sender = envelope.from().map_or("", AsRef::as_ref);
        let parameters = self.parameters(envelope, &text)?;
        match self.command(&format!("MAIL FROM:<{sender}>{parameters}")).await.map_err(silent)? {
            Answer::Code(200..=299) => {}
            Answer::Code(code) => return Err(of_server(code)),
            Answer::Unreadable => return Err(MailError::unavailable("an answer without a code")),
        }
        for recipient in envelope.to() {
            let recipient: &str = recipient.as_ref();
            let answer = self.command(&format!("RCPT TO:<{recipient}>")).await.map_err(silent)?;
            about_letter(answer, 200..=299)?;
        }
        about_letter(self.command("DATA").await.map_err(silent)?, 354..=354)?;
        match about_letter(self.text(&text).await.map_err(silent)?, 200..=299) {
            // The server may have taken the letter, and would get it again and again.
            Err(MailError::PutOff(code)) if &*code == UNREADABLE => Err(MailError::Refused(code)),
            answered => answered,
        }
    }

    /// The parameters of the sender that name the extensions which the letter needs.
    fn parameters(&self, envelope: &Envelope, text: &[u8]) -> Result<String, MailError> {
        let offers = |extension| self.extensions & extension != 0;
        let is_ascii = |address: &lettre::Address| AsRef::<str>::as_ref(address).is_ascii();
        let mut parameters = String::new();
        if !envelope.from().is_none_or(is_ascii) && !offers(EXT_SMTP_UTF8) {
            return Err(MailError::unavailable(
                "the server has no SMTPUTF8, which the sender needs",
            ));
        }
        if !envelope.to().iter().chain(envelope.from()).all(is_ascii) {
            if !offers(EXT_SMTP_UTF8) {
                return Err(MailError::Refused(NO_SMTPUTF8.into()));
            }
            parameters.push_str(" SMTPUTF8");
        }
        if !text.is_ascii() && offers(EXT_8BIT_MIME) {
            parameters.push_str(" BODY=8BITMIME");
        }
        Ok(parameters)
    }

    async fn command(&mut self, line: &str) -> io::Result<Answer> {
        within(self.client.timeout, async {
            self.client.stream.write_all(format!("{line}\r\n").as_bytes()).await?;
            self.client.stream.flush().await?;
            self.answer().await
        })
        .await
    }

    async fn text(&mut self, text: &[u8]) -> io::Result<Answer> {
        within(self.client.timeout, async {
            self.client.write_message(text).await?;
            self.answer().await
        })
        .await
    }

    async fn answer(&mut self) -> io::Result<Answer> {
        let (answer, more) = answer(&mut self.client.stream).await?;
        self.out_of_step |= more;
        Ok(answer)
    }
}

#[expect(clippy::disallowed_methods, reason = "a real server keeps real time")]
async fn within<T>(time: Duration, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(time, what).await?
}

/// Reads an answer. Only its code counts (RFC 5321, section 4.2): the text may be missing, and may be
/// in any character set. Tells whether more came than this answer.
async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Answer, bool)> {
    let (mut read, mut begin) = (Vec::new(), 0);
    loop {
        while let Some(length) = read[begin..].iter().position(|&byte| byte == b'\n') {
            let line: &[u8] = &read[begin..begin + length];
            let code = line.first_chunk::<3>().filter(|code| code.iter().all(u8::is_ascii_digit));
            let Some(code) = code else { return Ok((Answer::Unreadable, true)) };
            if line.get(3) != Some(&b'-') {
                let code = code.iter().fold(0, |code, digit| 10 * code + u16::from(digit - b'0'));
                return Ok((Answer::Code(code), begin + length + 1 < read.len()));
            }
            begin += length + 1;
        }
        if read.len() > MAX_ANSWER {
            return Ok((Answer::Unreadable, true));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// What an answer about the recipient or the content means. Only its code is passed on, because its
/// text may contain the recipient's address.
fn about_letter(answer: Answer, expected: std::ops::RangeInclusive<u16>) -> Result<(), MailError> {
    let Answer::Code(code) = answer else {
        // It may be for good, so the letter is given up in the end.
        return Err(MailError::PutOff(UNREADABLE.into()));
    };
    let named = || format!("smtp-{code}").into();
    Err(match code {
        code if expected.contains(&code) => return Ok(()),
        // The server closes the connection, or wants credentials or encryption first: answers that
        // it may give to any command (RFC 3207, 4954, 5321).
        421 | 454 | 530..=539 => of_server(code),
        400..=499 => MailError::PutOff(named()),
        500..=599 => MailError::Refused(named()),
        _ => MailError::PutOff(UNREADABLE.into()),
    })
}

/// What any other answer means.
pub(super) fn of_server(code: u16) -> MailError {
    MailError::unavailable(format!("the server answered {code}"))
}

/// No answer came. The error is the system's or that of TLS, not the server's words.
fn silent(error: io::Error) -> MailError {
    MailError::unavailable(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut bytes: &[u8]) -> Option<u16> {
        match answer(&mut bytes).await {
            Ok((Answer::Code(code), _)) => Some(code),
            Ok((Answer::Unreadable, _)) => Some(0),
            Err(_) => None,
        }
    }

    #[tokio::test]
    async fn only_the_code_of_an_answer_counts() {
        for (bytes, code) in [
            (&b"250 ok\r\n"[..], Some(250)),
            (b"250\r\n", Some(250)),
            (b"250\n", Some(250)),
            (b"250\tok\r\n", Some(250)),
            (b"250-one\r\n250-two\r\n250 three\r\n", Some(250)),
            (b"250-one\r\n251 two\r\n", Some(251)),
            (b"550 5.1.1 unbekannter Empf\xe4nger\r\n", Some(550)),
            (b"571 no\r\n", Some(571)),
            (b"HTTP/1.1 400 Bad Request\r\n", Some(0)),
            (b"\r\n", Some(0)),
            (b"25\r\n", Some(0)),
            (b"250 o", None),
            (b"", None),
        ] {
            assert_eq!(read(bytes).await, code, "{}", String::from_utf8_lossy(bytes));
        }
        for (bytes, more) in [(&b"250 ok\r\n"[..], false), (b"250 ok\r\n250 queued\r\n", true)] {
            let (_, found) = answer(&mut &*bytes).await.unwrap();
            assert_eq!(found, more);
        }
        let long = [&b"250 "[..], &vec![b'x'; 5_000], b"\r\n"].concat();
        assert_eq!(read(&long).await, Some(250));
        assert_eq!(read(&vec![b'2'; 2 * MAX_ANSWER]).await, Some(0), "it ends some time");
    }
}
