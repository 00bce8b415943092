//! A gateway without real money, for development and tests.
//!
//! It writes a journal, one JSON object per line, before it answers. So its payments survive the
//! death of the program, and a test can count in the journal that no customer was charged twice.
//! Several processes may share a journal, as they would share a real gateway: a process locks the
//! journal for each change, and first reads what the others have written.
//!
//! | payment method | result |
//! |---|---|
//! | `pm_card_visa` | captured |
//! | `pm_card_declined` | declined |
//! | `pm_card_slow` | captured after 3 s |
//! | `pm_card_error` | fails twice, then captured |
//! | anything else | declined |

mod journal;

use super::{Creation, Ending, Gateway, GatewayError, NewPayment, Refund};
use async_trait::async_trait;
use events::{Environment, Money};
use journal::{Entry, Journal};
use rustc_hash::FxHashMap;
use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use uuid::Uuid;

const SLOW: Duration = Duration::from_secs(3);
const ERRORS: u32 = 2;

/// How long and how often to wait for another process that has locked the journal. That process may
/// have been suspended.
const TURN_PAUSE: Duration = Duration::from_millis(1);
const TURN_TRIES: u32 = 2_000;

struct Payment {
    amount: Money,
    method: String,
    failures: u32,
    ending: Option<Ending>,
    refunds: Vec<Arc<str>>,
}

#[derive(Default)]
struct Books {
    payments: FxHashMap<Arc<str>, Payment>,
    journal: Option<Journal>,
}

/// Exclusive access to the sandbox's state and journal.
struct Turn<'a>(MutexGuard<'a, Books>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(journal) = &self.0.journal {
            journal.unlock();
        }
    }
}

/// The sandbox gateway.
pub struct SandboxGateway {
    environment: Arc<dyn Environment>,
    books: Mutex<Books>,
}

/// A call failed, as the payment method asks for or for another reason.
#[derive(Debug, thiserror::Error)]
enum SandboxFault {
    #[error("no payment {0:?} was created")]
    Unknown(String),
    #[error("the payment method asks for a failure")]
    Played,
    #[error("the journal cannot be written")]
    Journal(#[from] io::Error),
    #[error("another process has locked the journal")]
    Busy,
}

impl From<SandboxFault> for GatewayError {
    fn from(fault: SandboxFault) -> Self {
        match fault {
            // Another gateway may have made it: that says nothing about this one.
            SandboxFault::Unknown(_) => Self::NotNow(fault.into()),
            fault => Self::Unavailable(fault.into()),
        }
    }
}

impl SandboxGateway {
    /// A sandbox whose payments are lost when the program ends.
    pub fn in_memory(environment: Arc<dyn Environment>) -> Self {
        Self { environment, books: Mutex::default() }
    }

    /// A sandbox with its journal at `path`. Reads the journal; removes a last line that a crash
    /// has cut short.
    ///
    /// # Errors
    /// If the file cannot be read or created, or if a line is not a valid entry; the error names
    /// the line.
    pub fn open(path: &Path, environment: Arc<dyn Environment>) -> io::Result<Self> {
        let books = Books { journal: Some(Journal::open(path)?), ..Books::default() };
        let gateway = Self { environment, books: Mutex::new(books) };
        // If another process holds the lock, the journal is read at the first call instead.
        drop(gateway.try_turn()?);
        Ok(gateway)
    }

    /// Waits for exclusive access.
    async fn turn(&self) -> Result<Turn<'_>, SandboxFault> {
        for _ in 0..TURN_TRIES {
            if let Some(turn) = self.try_turn()? {
                return Ok(turn);
            }
            self.environment.sleep(TURN_PAUSE).await;
        }
        Err(SandboxFault::Busy)
    }

    fn try_turn(&self) -> io::Result<Option<Turn<'_>>> {
        let books = self.books();
        if let Some(journal) = &books.journal
            && !journal.try_lock()?
        {
            return Ok(None);
        }
        let mut turn = Turn(books);
        turn.0.catch_up()?;
        Ok(Some(turn))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn catch_up(&mut self) -> io::Result<()> {
        let news = self.journal.as_mut().map(Journal::read_on).transpose()?;
        news.into_iter().flatten().for_each(|entry| self.take_in(entry));
        Ok(())
    }

    fn take_in(&mut self, entry: Entry) {
        match entry {
            Entry::Created { payment_id, amount, method, .. } => {
                let payment =
                    Payment { amount, method, failures: 0, ending: None, refunds: Vec::new() };
                self.payments.insert(payment_id, payment);
            }
            Entry::Failed { payment_id } => {
                self.change(&payment_id, |payment| payment.failures += 1);
            }
            Entry::Captured { payment_id, .. } => {
                self.change(&payment_id, |payment| payment.ending = Some(Ending::Captured));
            }
            Entry::Declined { payment_id, code } => {
                self.change(&payment_id, |payment| payment.ending = Some(Ending::Declined(code)));
            }
            Entry::Voided { payment_id } => {
                self.change(&payment_id, |payment| payment.ending = Some(Ending::Voided));
            }
            Entry::Refunded { payment_id, refund_id, .. } => {
                self.change(&payment_id, |payment| payment.refunds.push(refund_id));
            }
        }
    }

    fn change(&mut self, payment_id: &str, change: impl FnOnce(&mut Payment)) {
        if let Some(payment) = self.payments.get_mut(payment_id) {
            change(payment);
        }
    }

    fn find(&self, payment_id: &str) -> Result<&Payment, SandboxFault> {
        self.payments.get(payment_id).ok_or_else(|| SandboxFault::Unknown(payment_id.to_owned()))
    }

    /// Writes an entry to the journal first, then applies it.
    fn write(&mut self, entry: Entry) -> Result<(), SandboxFault> {
        if let Some(journal) = &mut self.journal {
            journal.write(&entry)?;
        }
        self.take_in(entry);
        Ok(())
    }
}

/// The id that a key always gives.
fn id_of(prefix: &str, key: &str) -> Arc<str> {
    format!("{prefix}_{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple()).into()
}

#[async_trait]
impl Gateway for SandboxGateway {
    async fn create(&self, payment: &NewPayment<'_>) -> Result<Creation, GatewayError> {
        let &NewPayment { key, amount, method, .. } = payment;
        let payment_id = id_of("pay", key);
        let books = &mut self.turn().await?.0;
        if !books.payments.contains_key(&payment_id) {
            books.write(Entry::Created {
                payment_id: Arc::clone(&payment_id),
                key: key.to_owned(),
                amount,
                method: method.reveal().to_owned(),
            })?;
        }
        Ok(Creation::Created(payment_id))
    }

    async fn capture(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        let slow = self.turn().await?.0.find(payment_id)?.method == "pm_card_slow";
        if slow {
            self.environment.sleep(SLOW).await;
        }
        let books = &mut self.turn().await?.0;
        let payment = books.find(payment_id)?;
        if payment.ending.is_some() {
            return Ok(payment.ending.clone());
        }
        let (amount, failures) = (payment.amount, payment.failures);
        let method = payment.method.clone();
        let payment_id: Arc<str> = payment_id.into();
        match method.as_str() {
            "pm_card_error" if failures < ERRORS => {
                books.write(Entry::Failed { payment_id })?;
                Err(SandboxFault::Played.into())
            }
            "pm_card_visa" | "pm_card_slow" | "pm_card_error" => {
                books.write(Entry::Captured { payment_id, amount })?;
                Ok(Some(Ending::Captured))
            }
            other => {
                let code: Arc<str> = if other == "pm_card_declined" {
                    "card_declined"
                } else {
                    "unknown_payment_method"
                }
                .into();
                books.write(Entry::Declined { payment_id, code: Arc::clone(&code) })?;
                Ok(Some(Ending::Declined(code)))
            }
        }
    }

    async fn settle(&self, payment_id: &str) -> Result<Option<Ending>, GatewayError> {
        let books = &mut self.turn().await?.0;
        let payment = books.find(payment_id)?;
        if payment.ending.is_some() {
            return Ok(payment.ending.clone());
        }
        books.write(Entry::Voided { payment_id: payment_id.into() })?;
        Ok(Some(Ending::Voided))
    }

    async fn refund(
        &self,
        key: &str,
        payment_id: &str,
        amount: Money,
    ) -> Result<Refund, GatewayError> {
        let refund_id = id_of("re", key);
        let books = &mut self.turn().await?.0;
        if !books.find(payment_id)?.refunds.contains(&refund_id) {
            let (payment_id, refund_id) = (payment_id.into(), Arc::clone(&refund_id));
            books.write(Entry::Refunded { payment_id, refund_id, amount })?;
        }
        Ok(Refund::Issued(refund_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use events::environment::System;
    use std::{fs::OpenOptions, io::Write};

    fn pounds(amount: i64) -> Money {
        Money::new(amount, "GBP".parse().unwrap())
    }

    async fn create(
        gateway: &SandboxGateway,
        key: &str,
        amount: i64,
        method: &str,
    ) -> Result<Arc<str>, GatewayError> {
        let (order_id, method) = (Uuid::nil(), &method.into());
        let payment = NewPayment { key, order_id, amount: pounds(amount), method };
        match gateway.create(&payment).await? {
            Creation::Created(payment_id) => Ok(payment_id),
            Creation::Declined(code) => panic!("{code}"),
        }
    }

    #[tokio::test]
    async fn calls_survive_a_restart_and_are_carried_out_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sandbox.jsonl");
        let open = || SandboxGateway::open(&path, Arc::new(System::new())).unwrap();
        let gateway = open();
        let payment = create(&gateway, "order/payment/1", 500, "pm_card_visa").await.unwrap();
        assert_eq!(gateway.capture(&payment).await.unwrap(), Some(Ending::Captured));
        drop(gateway);

        let mut cut = OpenOptions::new().append(true).open(&path).unwrap();
        cut.write_all(b"{\"did\":\"capt").unwrap();
        let gateway = open();
        assert_eq!(
            create(&gateway, "order/payment/1", 500, "pm_card_visa").await.unwrap(),
            payment
        );
        assert_eq!(gateway.capture(&payment).await.unwrap(), Some(Ending::Captured));
        assert_eq!(gateway.settle(&payment).await.unwrap(), Some(Ending::Captured));
        let refund = gateway.refund("order/refund/1", &payment, pounds(500)).await.unwrap();
        assert_eq!(gateway.refund("order/refund/1", &payment, pounds(500)).await.unwrap(), refund);
        drop(gateway);
        let journal = std::fs::read_to_string(&path).unwrap();
        assert_eq!(journal.matches("captured").count(), 1, "{journal}");
        assert_eq!(journal.matches("refunded").count(), 1, "{journal}");
    }

    /// A full disk stores the beginning of a line and then nothing.
    #[tokio::test]
    async fn half_a_line_is_removed_and_the_next_start_reads_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sandbox.jsonl");
        let open = || SandboxGateway::open(&path, Arc::new(System::new()));
        let gateway = open().unwrap();
        create(&gateway, "a", 1, "pm_card_visa").await.unwrap();
        let mut full = OpenOptions::new().append(true).open(&path).unwrap();
        full.write_all(b"{\"did\":\"created\",\"pay").unwrap();
        let payment = create(&gateway, "b", 2, "pm_card_visa").await.unwrap();
        drop(gateway);
        assert_eq!(open().unwrap().capture(&payment).await.unwrap(), Some(Ending::Captured));

        let damaged = std::fs::read_to_string(&path).unwrap().replacen("created", "cr\u{1}ated", 1);
        std::fs::write(&path, damaged).unwrap();
        let Err(error) = open() else { panic!("a damaged journal was opened") };
        assert!(error.to_string().contains("line 1 is damaged"), "{error}");
    }

    #[tokio::test]
    async fn processes_that_share_a_journal_share_a_gateway() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sandbox.jsonl");
        let open = || SandboxGateway::open(&path, Arc::new(System::new())).unwrap();
        let (one, other) = (open(), open());
        let payment = create(&one, "order/payment/1", 500, "pm_card_visa").await.unwrap();
        let same = create(&other, "order/payment/1", 500, "pm_card_visa").await.unwrap();
        assert_eq!(same, payment);
        assert_eq!(other.settle(&payment).await.unwrap(), Some(Ending::Voided));
        assert_eq!(one.capture(&payment).await.unwrap(), Some(Ending::Voided));

        let turn = one.turn().await.unwrap();
        assert!(other.try_turn().unwrap().is_none());
        drop(turn);
        assert!(other.try_turn().unwrap().is_some());
        let journal = std::fs::read_to_string(&path).unwrap();
        assert_eq!(journal.lines().count(), 2, "{journal}");
    }

    #[tokio::test]
    async fn the_methods_do_what_the_table_says() {
        let gateway = SandboxGateway::in_memory(Arc::new(System::new()));
        let declined = create(&gateway, "a", 1, "pm_card_declined").await.unwrap();
        assert_eq!(
            gateway.capture(&declined).await.unwrap(),
            Some(Ending::Declined("card_declined".into()))
        );
        let error = create(&gateway, "b", 1, "pm_card_error").await.unwrap();
        assert!(gateway.capture(&error).await.is_err());
        assert!(gateway.capture(&error).await.is_err());
        assert_eq!(gateway.capture(&error).await.unwrap(), Some(Ending::Captured));
        let voided = create(&gateway, "c", 1, "pm_card_visa").await.unwrap();
        assert_eq!(gateway.settle(&voided).await.unwrap(), Some(Ending::Voided));
        assert_eq!(gateway.capture(&voided).await.unwrap(), Some(Ending::Voided));
        assert!(gateway.capture("pay_unknown").await.is_err());
    }
}
