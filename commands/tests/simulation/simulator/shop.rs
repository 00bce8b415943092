//! The state that all processes and clients of a world share.

use super::{
    books::{Books, Broken},
    calls::Call,
    gateway::Mood,
    network::Weather,
    post::{Post, PostMood},
    world::{ProcessId, World},
};
use commands::{Router, dispatch::Payments};
use events::{keys::MemoryKeyStore, log::memory::MemoryLog};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use uuid::Uuid;

/// The shop, seen from outside the processes.
pub struct Shop {
    pub world: Arc<World>,
    pub log: MemoryLog,
    pub weather: Arc<Weather>,
    pub keys: Arc<MemoryKeyStore>,
    books: Mutex<Books>,
    calls: Mutex<Vec<Call>>,
    routers: Mutex<Vec<(ProcessId, Router)>>,
    desks: Mutex<Vec<(ProcessId, Payments)>>,
    mood: Mutex<Mood>,
    post_mood: Mutex<PostMood>,
    post: Mutex<Post>,
    /// Customers whose letters were destroyed.
    forgotten: Mutex<BTreeSet<Uuid>>,
    /// When each process started.
    began: Mutex<BTreeMap<ProcessId, Duration>>,
    broken: Mutex<Option<Broken>>,
}

impl Shop {
    pub fn new(world: &Arc<World>, log: MemoryLog, books: Books) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            log,
            weather: Arc::default(),
            keys: Arc::default(),
            books: Mutex::new(books),
            calls: Mutex::default(),
            routers: Mutex::default(),
            desks: Mutex::default(),
            mood: Mutex::new(Mood::Calm),
            post_mood: Mutex::default(),
            post: Mutex::default(),
            forgotten: Mutex::default(),
            began: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    pub fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap()
    }

    pub fn mood(&self) -> Mood {
        *self.mood.lock().unwrap()
    }

    pub fn set_mood(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub fn post_mood(&self) -> PostMood {
        *self.post_mood.lock().unwrap()
    }

    pub fn set_post_mood(&self, mood: PostMood) {
        *self.post_mood.lock().unwrap() = mood;
    }

    pub fn post(&self) -> MutexGuard<'_, Post> {
        self.post.lock().unwrap()
    }

    pub fn forgotten(&self) -> MutexGuard<'_, BTreeSet<Uuid>> {
        self.forgotten.lock().unwrap()
    }

    /// When a process started.
    pub fn began(&self, process: ProcessId) -> Duration {
        self.began.lock().unwrap()[&process]
    }

    pub fn note_begin(&self, process: ProcessId) {
        self.began.lock().unwrap().insert(process, self.world.clock());
    }

    /// Records a broken invariant. Only the first one is kept, because later ones may follow from
    /// it.
    pub fn breaks(&self, broken: impl Into<Broken>) {
        self.broken.lock().unwrap().get_or_insert(broken.into());
    }

    pub fn broken(&self) -> Option<Broken> {
        self.broken.lock().unwrap().clone()
    }

    /// Folds the records that were appended.
    pub fn observe(&self) {
        if let Err(broken) = self.books().observe(&self.log, self.world.clock()) {
            self.breaks(broken);
        }
    }

    /// Adds a line to the story, if it is wanted.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        let clock = self.world.clock().as_secs_f64();
        if let Some(story) = &mut self.books().story {
            story.push(format!("{clock:>12.6} {}", what()));
        }
    }

    pub fn open_door(&self, process: ProcessId, router: Router, payments: Payments) {
        self.routers.lock().unwrap().push((process, router));
        self.desks.lock().unwrap().push((process, payments));
    }

    pub fn close_door(&self, process: ProcessId) {
        self.routers.lock().unwrap().retain(|door| door.0 != process);
        self.desks.lock().unwrap().retain(|desk| desk.0 != process);
    }

    /// Where some process takes the gateway's notices; the process is not known to be dead.
    pub fn desk(&self) -> Option<Payments> {
        let desks = self.desks.lock().unwrap();
        let at = self.world.below(desks.len().max(1) as u64);
        desks.get(usize::try_from(at).unwrap()).map(|desk| desk.1.clone())
    }

    /// Some process that is not known to be dead.
    pub fn door(&self) -> Option<(ProcessId, Router)> {
        let routers = self.routers.lock().unwrap();
        if routers.is_empty() {
            return None;
        }
        let at = self.world.below(routers.len() as u64);
        Some(routers[usize::try_from(at).unwrap()].clone())
    }
}
