//! What a worker asks the ledger's thread: what a request has used that has ended.
//!
//! A question goes through a bounded channel and is answered into one of its own, which the worker looks at every
//! `LOOK_EVERY`: a worker is woken by its kernel only, on every driver, and this is asked seldom. Limits:
//! `QUESTIONS_MAX` wait; [`ANSWER_MAX`]. Errors: [`Busy`]: too many wait, or the thread is stuck in a write.

use crate::net::runtime;
use crate::usage::ledger::recents::Recent;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

const QUESTIONS_MAX: usize = 256;
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long an answer is waited for.
pub const ANSWER_MAX: Duration = Duration::from_secs(1);

/// What the ledger's thread is told.
#[derive(Debug)]
pub enum Order {
    Ask(Question),
    /// Make durable what is final, and end.
    End,
}

/// Which request is asked for.
#[derive(Debug)]
pub struct Question {
    pub id: String,
    answer: SyncSender<Option<Recent>>,
}

impl Question {
    /// Answers it. Nobody may wait for it any more.
    pub fn answer(self, recent: Option<Recent>) {
        let _ = self.answer.try_send(recent);
    }
}

/// The ledger cannot answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// A worker's way to the ledger's thread.
#[derive(Clone, Debug)]
pub struct Asker {
    orders: SyncSender<Order>,
}

/// Orders for the ledger's thread, and who gives them.
pub fn orders() -> (SyncSender<Order>, Receiver<Order>) {
    sync_channel(QUESTIONS_MAX)
}

impl Asker {
    pub fn new(orders: SyncSender<Order>) -> Asker {
        Asker { orders }
    }

    /// The request with this id; none: it has not ended, or long ago, or there was none. The caller must compare
    /// the key.
    pub async fn ask(&self, id: &str) -> Result<Option<Recent>, Busy> {
        let (answer, answered) = sync_channel(1);
        self.orders.try_send(Order::Ask(Question { id: id.to_owned(), answer })).map_err(|_| Busy)?;
        for _ in 0..ANSWER_MAX.as_millis() / LOOK_EVERY.as_millis() {
            runtime::sleep(LOOK_EVERY).await;
            if let Ok(recent) = answered.try_recv() {
                return Ok(recent);
            }
        }
        Err(Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::{Asker, Busy, Order, QUESTIONS_MAX, orders};
    use crate::net::runtime::{self, Wish};
    use crate::usage::ledger::recents::Recents;
    use crate::usage::ledger::record::Record;
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Instant;

    fn run(work: impl Future<Output = ()>) {
        runtime::run(Wish::Any, |_| {}, || work).expect("a driver");
    }

    #[test]
    fn a_question_is_answered_by_the_thread_and_one_too_many_or_without_one_is_refused() {
        let (give, taken) = orders();
        let asker = Asker::new(give);
        let thread = std::thread::spawn(move || {
            let mut recents = Recents::default();
            recents.add(&Record { id: "a".to_owned(), status: 201, ..Record::default() }, Instant::now());
            for _ in 0..2 {
                let Ok(Order::Ask(question)) = taken.recv() else { panic!("a question") };
                let found = recents.find(&question.id, Instant::now());
                question.answer(found);
            }
        });
        let answers = Rc::new(Cell::new(None));
        let told = Rc::clone(&answers);
        run(async move {
            let found = asker.ask("a").await.expect("an answer").map(|recent| recent.status);
            let absent = asker.ask("b").await.expect("an answer").is_none();
            thread.join().expect("it ended");
            told.set(Some((found, absent, asker.ask("a").await)));
        });
        assert_eq!(answers.take(), Some((Some(201), true, Err(Busy))));
        let (give, taken) = orders();
        let asker = Asker::new(give.clone());
        for _ in 0..QUESTIONS_MAX {
            give.try_send(Order::End).expect("room");
        }
        let told = Rc::clone(&answers);
        run(async move { told.set(Some((None, false, asker.ask("a").await))) });
        assert_eq!(answers.take(), Some((None, false, Err(Busy))));
        drop(taken);
    }
}
