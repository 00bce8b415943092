//! The part of `PostgreSQL`'s wire protocol that the proxy needs: the ends of messages, and the
//! statement that a message belongs to.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::BTreeMap;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::tcp::OwnedReadHalf,
};

/// A message on the wire. `kind` is 0 for the first message of a connection, which has no kind.
pub struct Message {
    pub kind: u8,
    pub bytes: Bytes,
}

impl Message {
    fn body(&self) -> &[u8] {
        &self.bytes[if self.kind == 0 { 4 } else { 5 }..]
    }

    /// The id of the server process, if this message contains it.
    pub fn backend(&self) -> Option<u32> {
        (self.kind == b'K').then(|| self.body().get_u32())
    }
}

/// The messages of one direction of a connection.
pub struct Messages {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    typed: bool,
}

impl Messages {
    /// The messages of the server.
    pub fn of_server(stream: OwnedReadHalf) -> Self {
        Self { stream, buffer: BytesMut::new(), typed: true }
    }

    /// The messages of the client.
    pub fn of_client(stream: OwnedReadHalf) -> Self {
        Self { stream, buffer: BytesMut::new(), typed: false }
    }

    /// The next message; `None` once the other side has closed. The future may be dropped without
    /// losing data.
    pub async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            if read(&mut self.stream, &mut self.buffer).await == 0 {
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<Message> {
        let head = usize::from(self.typed);
        let length = self.buffer.get(head..head + 4)?;
        let length = head + usize::try_from((&*length).get_u32()).unwrap();
        if self.buffer.len() < length {
            return None;
        }
        let kind = if self.typed { self.buffer[0] } else { 0 };
        self.typed = true;
        Some(Message { kind, bytes: self.buffer.split_to(length).freeze() })
    }
}

/// Reads more data. A broken connection counts as closed.
async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> usize {
    stream.read_buf(buffer).await.unwrap_or(0)
}

/// Maps the messages of a client to statements.
#[derive(Default)]
pub struct Statements {
    prepared: BTreeMap<Vec<u8>, &'static str>,
    current: &'static str,
}

impl Statements {
    /// The statement that this message is part of.
    pub fn of(&mut self, message: &Message) -> &'static str {
        let mut body = message.body();
        match message.kind {
            0 | b'p' => self.current = "connecting",
            b'X' => self.current = "leaving",
            b'Q' => self.current = named(&text(&mut body)),
            b'P' => {
                let (name, sql) = (text(&mut body), text(&mut body));
                self.current = named(&sql);
                self.prepared.insert(name, self.current);
            }
            b'B' => {
                let (_, name) = (text(&mut body), text(&mut body));
                self.current = self.prepared.get(&name).copied().unwrap_or("other");
            }
            b'D' if body.first() == Some(&b'S') => {
                self.current =
                    self.prepared.get(&text(&mut &body[1..])).copied().unwrap_or("other");
            }
            _ => {}
        }
        self.current
    }
}

fn text(body: &mut &[u8]) -> Vec<u8> {
    let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
    let text = body[..end].to_vec();
    body.advance((end + 1).min(body.len()));
    text
}

/// The names of statements: the first text that a statement contains decides its name.
const NAMES: [(&str, &str); 36] = [
    ("_sqlx_migrations", "migrations"),
    ("create schema control", "migrations"),
    ("create table control.parked", "migrations"),
    ("pg_advisory_lock", "migrations"),
    ("pg_advisory_unlock", "migrations"),
    ("current_database()", "migrations"),
    ("pg_advisory_xact_lock", "the lock of versions"),
    ("create schema", "making a version"),
    ("insert into control.version", "making a version"),
    ("insert into control.checkpoint", "making a version"),
    ("drop schema", "dropping a version"),
    ("delete from control.version", "dropping a version"),
    ("delete from control.lease where projection", "dropping a version"),
    ("maintenance_work_mem", "making indexes"),
    ("select indexes", "making indexes"),
    ("add primary key", "making indexes"),
    ("create index", "making indexes"),
    ("set indexes", "making indexes"),
    ("control.parked", "parking"),
    ("savepoint", "savepoints"),
    ("or replace view", "switching"),
    ("set local lock_timeout", "switching"),
    ("for update", "switching"),
    ("set serving =", "switching"),
    ("exists (select from control.checkpoint", "switching"),
    ("from control.version", "looking at versions"),
    ("control.lease", "leases"),
    ("c set next_offset", "moving a checkpoint"),
    ("set stopped", "stopping"),
    ("from control.checkpoint", "reading checkpoints"),
    ("copy ", "copying rows"),
    ("insert into", "inserting rows"),
    ("update ", "updating rows"),
    ("select ", "reading rows"),
    ("commit", "commit"),
    ("rollback", "rollback"),
];

fn named(sql: &[u8]) -> &'static str {
    let sql = String::from_utf8_lossy(sql).to_lowercase();
    if sql.starts_with("begin") {
        return "begin";
    }
    NAMES.iter().find(|(part, _)| sql.contains(part)).map_or("other", |(_, name)| name)
}
