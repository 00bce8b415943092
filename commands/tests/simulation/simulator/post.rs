//! A simulated mail server that can be slow or fail. It delivers every letter it accepts, even if
//! the caller no longer waits for the answer.

use super::{
    shop::Shop,
    world::{OUTSIDE, ProcessId},
};
use async_trait::async_trait;
use commands::mail::{Letter, MailError, Mailer};
use events::order::Mail;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The current behaviour of the mail server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PostMood {
    /// Calls are quick and reliable.
    #[default]
    Open,
    /// Every third letter is deferred, or is delivered but the caller gets an error.
    Failing,
    /// Letters take seconds, some longer than the caller waits.
    Slow,
    /// Letters are delivered, but the caller gets no answer.
    Silent,
    /// Every second letter is refused permanently.
    Strict,
}

/// What happened to the letters about one event.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    pub message_ids: Vec<String>,
    /// The processes that were told that it was sent.
    pub told: Vec<ProcessId>,
    /// Whether the server refused it permanently and some process was told so.
    pub refused: bool,
}

/// The mail server's records, by order and kind of letter.
pub type Post = BTreeMap<(Uuid, Mail), Delivered>;

/// The mail server, as one process calls it.
pub struct Postman {
    pub shop: Arc<Shop>,
    pub process: ProcessId,
}

impl Postman {
    /// Decides whether the letter is sent now. Fails if it must not be sent.
    fn deliver(
        shop: &Shop,
        process: ProcessId,
        order: Uuid,
        mail: Mail,
        id: &str,
    ) -> Result<(), String> {
        let books = shop.books();
        let about =
            books.orders.get(&order).ok_or("a letter about an order that does not exist")?;
        if !about.mails.contains_key(&mail) {
            return Err(format!("order {order}: a {mail:?} letter that no event asks for"));
        }
        // A process that serves has read everything that was appended before it started.
        let landed = about.mails[&mail].recorded;
        let began = shop.began(process);
        if landed.is_some_and(|landed| landed < began) {
            return Err(format!(
                "order {order}: the {mail:?} letter is sent again although the log has it"
            ));
        }
        let mut post = shop.post();
        let delivered = post.entry((order, mail)).or_default();
        if delivered.told.contains(&process) {
            return Err(format!(
                "order {order}: the {mail:?} letter is sent again by the same process"
            ));
        }
        if delivered.message_ids.iter().any(|before| before != id) {
            return Err(format!("order {order}: the {mail:?} letter has two ids"));
        }
        delivered.message_ids.push(id.to_owned());
        Ok(())
    }
}

#[async_trait]
impl Mailer for Postman {
    async fn send(&self, letter: &Letter) -> Result<Arc<str>, MailError> {
        let (shop, process, (answer, answered)) =
            (Arc::clone(&self.shop), self.process, oneshot::channel());
        let (order, mail, id) = (letter.order_id, letter.mail, letter.message_id("shop.example"));
        if !letter.email.starts_with("address ") {
            shop.breaks(format!("order {order}: a letter to {:?}", letter.email));
        }
        let sent = id.clone();
        shop.world.clone().spawn(
            OUTSIDE,
            Box::pin(async move {
                let (world, mood) = (&shop.world, shop.post_mood());
                let (before, after) = match mood {
                    PostMood::Open | PostMood::Strict => (world.below(2), world.below(2)),
                    PostMood::Failing => (world.below(50), world.below(50)),
                    PostMood::Slow => (world.below(40_000), world.below(40_000)),
                    PostMood::Silent => (world.below(5_000), 3_600_000),
                };
                let fails = mood == PostMood::Failing && world.once_in(3);
                let does = !fails || world.once_in(2);
                let refuses = mood == PostMood::Strict && world.once_in(2);
                world.sleep(Duration::from_millis(before)).await;
                shop.observe();
                if refuses {
                    shop.post().entry((order, mail)).or_default().refused = true;
                    let _ = answer.send(Err(MailError::Refused("smtp-550".into())));
                    return;
                }
                if does && let Err(broken) = Self::deliver(&shop, process, order, mail, &sent) {
                    shop.breaks(broken);
                }
                world.sleep(Duration::from_millis(after)).await;
                if !does {
                    let _ = answer.send(Err(MailError::PutOff("smtp-451".into())));
                    return;
                }
                if !fails && answer.send(Ok(Arc::from(sent))).is_ok() {
                    shop.post().entry((order, mail)).or_default().told.push(process);
                }
            }),
        );
        answered
            .await
            .unwrap_or_else(|_| Err(MailError::Unavailable("the mail server failed".into())))
    }

    async fn forget(&self, customer_id: Uuid) -> Result<(), MailError> {
        self.shop.forgotten().insert(customer_id);
        Ok(())
    }
}
