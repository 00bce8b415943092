//! Carries out what customers owe: taking and releasing e-mail addresses at the addresses' streams,
//! and destroying what belongs to an erased customer.

use super::{EffectError, Executor, owed_request};
use crate::{
    customer::{self, Belonging, Effect, REGISTRATION},
    email::{self, ReleaseEmail, TakeEmail},
    request::{CommandError, Outcome, Refusal, State},
    wishlist,
};
use events::{StreamId, planted::Bug};

impl Executor {
    pub(super) async fn customer_effect(
        &self,
        customer: StreamId,
        effect: &Effect,
    ) -> Result<(), EffectError> {
        let id = effect.id().to_string();
        let command = match *effect {
            Effect::TakeEmail { attempt, email_id } => {
                let take = email::Command::Take(TakeEmail { customer_id: customer.id, attempt });
                match self
                    .send_command(owed_request(customer, StreamId::email(email_id), &id, take))
                    .await?
                {
                    Ok(Outcome { view, .. }) => {
                        let State::Email(email) = &view.state else {
                            return Err(EffectError::Unanswered);
                        };
                        let returning = email.is_known();
                        if attempt == REGISTRATION {
                            customer::Command::ConfirmRegistration { returning }
                        } else {
                            customer::Command::ConfirmEmail { attempt, returning }
                        }
                    }
                    // Another customer has the address, or this request was already released.
                    Err(Refusal::Email(_)) if attempt == REGISTRATION => {
                        customer::Command::RefuseRegistration
                    }
                    Err(Refusal::Email(_)) => customer::Command::RefuseEmail { attempt },
                    Err(refusal) => return Err(CommandError::Refused(refusal).into()),
                }
            }
            Effect::ReleaseEmail { attempt, email_id, ordered } => {
                let request = TakeEmail { customer_id: customer.id, attempt };
                let release = email::Command::Release(ReleaseEmail { request, ordered });
                self.send_command(owed_request(customer, StreamId::email(email_id), &id, release))
                    .await?
                    .map_err(CommandError::Refused)?;
                customer::Command::RecordEmailReleased { attempt }
            }
            // This effect is owed only after the erasure is in the log, and an erasure is never
            // undone.
            Effect::DestroyKey => {
                for belonging in Belonging::ALL {
                    self.destroy(customer, belonging).await?;
                }
                customer::Command::RecordKeyDestroyed
            }
        };
        // A refusal means that the customer has moved on; what is owed now is on the board.
        let _ = self.send_command(owed_request(customer, customer, &id, command)).await?;
        Ok(())
    }

    async fn destroy(&self, customer: StreamId, belonging: Belonging) -> Result<(), EffectError> {
        match belonging {
            Belonging::Key if Bug::KeyKept.is_planted() => {}
            Belonging::Key => self.keys.destroy(customer.id).await?,
            // A letter that is being sent at this moment checks the key afterwards, finds that it is
            // gone, and is destroyed too.
            Belonging::Letters => self.mailer.forget(customer.id).await?,
            Belonging::Wishlist => {
                let wishlist = StreamId::wishlist(customer.id);
                let clear = wishlist::Command::Clear;
                self.send_command(owed_request(customer, wishlist, "clear-wishlist", clear))
                    .await?
                    .map_err(CommandError::Refused)?;
            }
        }
        Ok(())
    }
}
