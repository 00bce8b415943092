//! The contents of letters.

use super::{Address, MailError, Sender};
use crate::order::RefundState;
use askama::Template;
use events::{
    Money, Timestamp,
    order::{DiscountKind, Mail, Priced},
};
use lettre::{
    Message,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{ContentType, Header, HeaderName, HeaderValue},
    },
};
use std::{fmt::Display, sync::Arc, time::Duration};
use uuid::Uuid;

/// Asks programs that answer letters to keep silent (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// A letter about an order, with the customer's personal data in plain text. Never store or log it.
#[derive(Clone)]
pub struct Letter {
    /// The event that the letter announces.
    pub mail: Mail,
    /// The order.
    pub order_id: Uuid,
    /// The recipient.
    pub customer_id: Uuid,
    /// The recipient's address.
    pub email: String,
    /// The recipient's given name.
    pub first_name: String,
    /// The recipient's family name.
    pub last_name: String,
    /// The lines, discounts and total.
    pub priced: Option<Priced>,
    /// Why the order was cancelled, as the caller wrote it.
    pub reason: Option<Arc<str>>,
    /// Whether the customer gets money back.
    pub refund: RefundState,
    /// The date of the letter.
    pub date: Timestamp,
    /// The last change of the order that clients see. The letter has been owed since this moment or
    /// longer.
    pub owed_since: Timestamp,
}

#[derive(Template)]
#[template(path = "mail/letter.txt")]
struct Text<'a> {
    page: &'a Page<'a>,
}

#[derive(Template)]
#[template(path = "mail/letter.html")]
struct Html<'a> {
    page: &'a Page<'a>,
}

/// The values that the templates show. A text of people's is one line: the log may hold others from
/// before they were refused.
struct Page<'a> {
    shop: &'a str,
    first_name: String,
    heading: &'static str,
    news: &'static str,
    order_id: Uuid,
    lines: Vec<Line>,
    subtotal: String,
    discounts: Vec<(&'static str, String)>,
    total: String,
    reason: Option<String>,
    refund: Option<&'static str>,
}

struct Line {
    name: String,
    quantity: i64,
    each: String,
    together: String,
}

impl Letter {
    /// The Message-ID, without angle brackets. It derives from values that never change.
    pub fn message_id(&self, domain: &str) -> String {
        format!("{}.{}@{domain}", self.order_id, self.mail.as_str())
    }

    /// About how long the letter has been owed.
    pub(super) fn waited(&self) -> Duration {
        (self.date - self.owed_since).to_std().unwrap_or_default()
    }

    /// The letter as a message (RFC 5322) from `sender`.
    ///
    /// # Errors
    /// [`MailError::Refused`] if the recipient's address is not valid.
    pub(super) fn message(&self, sender: &Sender) -> Result<Message, MailError> {
        let address: Address =
            self.email.parse().map_err(|_| MailError::Refused("bad-address".into()))?;
        let name = format!("{} {}", self.first_name, self.last_name);
        let page = self.page(sender);
        let render = |text: askama::Result<String>| text.map_err(MailError::unavailable);
        let part = |kind, body| SinglePart::builder().header(kind).body(body);
        // Derived from the letter, so that the same letter always gives the same bytes. The text of
        // a letter does not contain it by chance.
        let boundary = format!("=_{}.{}", self.order_id.simple(), self.mail.as_str());
        let body = MultiPart::builder()
            .kind(lettre::message::MultiPartKind::Alternative)
            .boundary(boundary)
            .singlepart(part(ContentType::TEXT_PLAIN, render(Text { page: &page }.render())?))
            .singlepart(part(ContentType::TEXT_HTML, render(Html { page: &page }.render())?));
        Message::builder()
            .from(sender.mailbox()?)
            .to(Mailbox::new(Some(plain(&name)), address.mailable().clone()))
            .subject(format!("{}: {}", plain(sender.shop()), page.heading))
            .date(self.date.into())
            .message_id(Some(format!("<{}>", self.message_id(sender.domain()))))
            .header(AutoSubmitted)
            .multipart(body)
            .map_err(MailError::unavailable)
    }

    fn page<'a>(&'a self, sender: &'a Sender) -> Page<'a> {
        let (heading, news) = match self.mail {
            Mail::Confirmed => (
                "your order is confirmed",
                "thank you for your order. It is confirmed, and we will ship it to you.",
            ),
            Mail::Shipped => ("your order is on its way", "your order has been shipped."),
            Mail::Cancelled => ("your order is cancelled", "your order is cancelled."),
        };
        let priced = self.priced.as_ref();
        let discounts = priced.iter().flat_map(|priced| priced.discounts.iter());
        let lines = priced.iter().flat_map(|priced| priced.lines.iter());
        let is_cancelled = self.mail == Mail::Cancelled;
        Page {
            shop: sender.shop(),
            first_name: plain(&self.first_name),
            heading,
            news,
            order_id: self.order_id,
            lines: lines
                .map(|line| Line {
                    name: plain(&line.name),
                    quantity: line.quantity,
                    each: shown(line.unit_price),
                    together: shown(line.line_total),
                })
                .collect(),
            subtotal: priced.map(|priced| shown(priced.subtotal)).unwrap_or_default(),
            discounts: discounts
                .map(|one| {
                    (discount(one.kind), shown(one.amount.with(one.amount.amount.saturating_neg())))
                })
                .collect(),
            total: priced.map(|priced| shown(priced.total)).unwrap_or_default(),
            reason: self.reason.as_ref().filter(|_| is_cancelled).map(plain),
            refund: match self.refund {
                RefundState::None => None,
                RefundState::Pending | RefundState::Done | RefundState::Failed if !is_cancelled => {
                    None
                }
                RefundState::Pending | RefundState::Failed => {
                    Some("We will refund the amount you paid.")
                }
                RefundState::Done => Some(
                    "We have sent back the amount you paid. Your bank may take some days to show it.",
                ),
            },
        }
    }
}

fn discount(kind: DiscountKind) -> &'static str {
    match kind {
        DiscountKind::Vip => "VIP discount",
        DiscountKind::Volume => "Volume discount",
        DiscountKind::FirstOrder => "First order discount",
        DiscountKind::Cap => "Limit on discounts",
    }
}

/// Replaces line ends and other control characters, so that no value can start a new header or a
/// paragraph of its own.
fn plain(text: impl Display) -> String {
    text.to_string().chars().map(|it| if it.is_control() { ' ' } else { it }).collect()
}

/// An amount as people write it, for example `8.99 GBP`.
fn shown(money: Money) -> String {
    let (code, decimals) = (money.currency.code(), money.currency.decimals());
    let (sign, amount) = (if money.amount < 0 { "-" } else { "" }, money.amount.unsigned_abs());
    if decimals == 0 {
        return format!("{sign}{amount} {code}");
    }
    let unit = 10_u64.pow(decimals);
    let width = decimals as usize;
    format!("{sign}{}.{:0width$} {code}", amount / unit, amount % unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::testing::{at, id, pounds};
    use events::order::{Discount, PricedLine};

    fn priced(name: &str) -> Priced {
        Priced {
            lines: [PricedLine {
                product_id: id(1),
                name: name.into(),
                quantity: 2,
                unit_price: pounds(8_99),
                line_total: pounds(17_98),
            }]
            .into(),
            subtotal: pounds(17_98),
            discounts: [Discount { kind: DiscountKind::FirstOrder, amount: pounds(5_39) }].into(),
            discount: pounds(5_39),
            total: pounds(12_59),
            rests_on: Arc::default(),
        }
    }

    fn letter(mail: Mail) -> Letter {
        Letter {
            mail,
            order_id: id(7),
            customer_id: id(8),
            email: "ada@example.org".into(),
            first_name: "Ada".into(),
            last_name: "Byron".into(),
            priced: Some(priced("Emma")),
            reason: Some("second thoughts".into()),
            refund: RefundState::Pending,
            date: at(0),
            owed_since: at(0),
        }
    }

    fn written(letter: &Letter) -> String {
        let sender: Sender = "The Book Shop <orders@shop.example>".parse().unwrap();
        String::from_utf8(letter.message(&sender).unwrap().formatted()).unwrap()
    }

    #[test]
    fn a_letter_names_shop_order_lines_discounts_and_total_and_is_the_same_bytes_again() {
        let text = written(&letter(Mail::Confirmed));
        for part in [
            "From: \"The Book Shop\" <orders@shop.example>",
            "To: \"Ada Byron\" <ada@example.org>",
            "Subject: The Book Shop: your order is confirmed",
            "Message-ID: <00000000-0000-0000-0000-000000000007.confirmed@shop.example>",
            "Dear Ada,",
            "2 x Emma, 8.99 GBP each: 17.98 GBP",
            "First order discount: -5.39 GBP",
            "Total: 12.59 GBP",
            "text/html",
            "<td>Emma</td>",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains("second thoughts"), "{text}");
        assert_eq!(text, written(&letter(Mail::Confirmed)));
    }

    #[test]
    fn a_cancellation_gives_the_reason_and_announces_the_refund() {
        let text = written(&letter(Mail::Cancelled));
        assert!(text.contains("second thoughts") && text.contains("We will refund"), "{text}");
        let unpaid = Letter { refund: RefundState::None, reason: None, ..letter(Mail::Cancelled) };
        let text = written(&unpaid);
        assert!(!text.contains("refund") && !text.contains("Reason"), "{text}");
    }

    #[test]
    fn text_from_people_becomes_neither_markup_nor_a_header() {
        let nasty = Letter {
            first_name: "Eve\r\nBcc: all@example.org\r\n\r\n<script>".into(),
            priced: Some(priced("<b>Emma & Co</b>")),
            ..letter(Mail::Shipped)
        };
        let text = written(&nasty);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(!head.lines().any(|line| line.to_lowercase().starts_with("bcc")), "{head}");
        assert!(!body.lines().any(|line| line.starts_with("Bcc")), "{body}");
        let html = body.split("text/html").nth(1).unwrap();
        assert!(html.contains("&#60;script&#62;") && !html.contains("<b>Emma"), "{html}");
    }

    #[test]
    fn a_domain_stands_in_the_head_as_mail_servers_know_it() {
        let abroad = Letter { email: "ada@bücher.example".into(), ..letter(Mail::Shipped) };
        let text = written(&abroad);
        assert!(text.contains("<ada@xn--bcher-kva.example>") && text.is_ascii(), "{text}");
    }

    #[test]
    fn an_invalid_address_is_refused_permanently() {
        let lost = Letter { email: "nowhere".into(), ..letter(Mail::Confirmed) };
        let sender: Sender = "orders@localhost".parse().unwrap();
        assert!(matches!(lost.message(&sender), Err(MailError::Refused(_))));
    }

    #[test]
    fn amounts_have_the_decimals_of_their_currency() {
        let of = |amount, code: &str| shown(Money::new(amount, code.parse().unwrap()));
        assert_eq!(of(8_05, "GBP"), "8.05 GBP");
        assert_eq!(of(-5, "EUR"), "-0.05 EUR");
        assert_eq!(of(1_200, "JPY"), "1200 JPY");
        assert_eq!(of(1_234, "KWD"), "1.234 KWD");
        assert_eq!(of(i64::MIN, "GBP"), "-92233720368547758.08 GBP");
    }
}
