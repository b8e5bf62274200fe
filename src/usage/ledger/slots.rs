//! Slots: where a request's record stands from its intent until it is durable.
//!
//! A region is a run of shared words: a head, then the slots of every worker. A slot belongs to its worker while
//! it is FREE or INTENT and to the writer while it is FINAL:
//!
//! ```text
//!            begin                 finish, attempt              durable
//!   FREE ------------> INTENT ----------------------> FINAL --------------> FREE
//!                       |  ^ retarget, progress
//!                       +--+
//! ```
//!
//! Every change is written beside what is valid and then made valid by one store (Release) to the slot's first
//! word, so at whichever instruction a process is killed, each slot shows one whole state: usage and target
//! have two places each, of which that word names one; the final numbers go to the target's place that is not
//! named. Whatever bits a slot holds are read as some record, never as a panic: lengths are cut to their room,
//! text that is none is replaced.
//!
//! Limits: names from the config (128 bytes at most) are whole: key, team, organisation, provider. What else does
//! not fit is cut where a character ends: the model asked for and the tags share what the names leave of
//! `TEXT_WORDS` (440 bytes with short names, 24 with the longest), the model sent what provider and holds leave
//! of `TARGET_WORDS`. Counts of tokens are kept up to 4,294,967,294.
//!
//! A slot is 23 cache lines. Odd: with an even number, or a power of two, the first lines of all slots would
//! fall into few sets of the cache.

use crate::base::words::{WORD_BYTES, Words};
use crate::llm::dialect::Caching;
use crate::usage::ledger::record::{
    AttemptOutcome, Final, HOLDS_MAX, Hold, Intent, Kind, Record, STEPS, Target, cut,
};
use crate::usage::{Apart, Provenance, Usage};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Words of a slot.
pub const SLOT_WORDS: usize = TEXTS + TEXT_WORDS;
/// Words of a region's head.
const HEAD_WORDS: usize = 64;
/// Bytes of a region's head.
pub const HEAD_BYTES: usize = HEAD_WORDS * WORD_BYTES;

/// Slots of one worker at most, and workers.
const SLOTS_MAX: u64 = 1 << 20;
const WORKERS_MAX: u64 = 4096;

// Words of the head.
const MAGIC: usize = 0;
const WORKERS: usize = 1;
const SLOTS: usize = 2;
/// Where the segments ended when the last slots were given back: the segment in the upper 24 bits.
const MARK: usize = 3;
/// The boot in which it was made, two words.
const BOOT: usize = 4;

/// "tollgate ledger", and the layout's number in the last byte.
const MAGIC_VALUE: u64 = u64::from_le_bytes(*b"tg-ldgr\x01");

// Words of a slot.
const STATE: usize = 0;
/// 0..16: number of the attempt; 16: stream; 24..32: length of the client's address.
const META: usize = 1;
const ID: usize = 2;
const STARTED: usize = 6;
const INPUT_ESTIMATE: usize = 7;
const USAGE: [usize; 2] = [8, 14];
const LENGTHS: usize = 20;
const CLIENT: usize = 21;
const TARGET: [usize; 2] = [24, 24 + TARGET_WORDS];
const TEXTS: usize = 24 + 2 * TARGET_WORDS;

const ID_BYTES: usize = 32;
/// Lengths, all holds, a provider's name of 128 bytes, 24 bytes of a model's.
const TARGET_WORDS: usize = 1 + 2 * HOLDS_MAX + 19;
/// Three names of 128 bytes, surface and dialect, 24 bytes of the model's.
const TEXT_WORDS: usize = 56;

const NAME_BYTES_MAX: usize = 128;
const SURFACE_BYTES_MAX: usize = 16;
const DIALECT_BYTES_MAX: usize = 24;
/// Lengths are kept in a byte.
const TEXT_BYTES_MAX: usize = 255;

// Words of the final numbers, within a target's place.
const COST: usize = 0;
/// 0..16: status; 16: a cost is known; 17: unpriced; 32..64: attempts.
const STATUS: usize = 1;
const EVENTS: usize = 2;
const BYTES_IN: usize = 3;
const BYTES_OUT: usize = 4;
const STEPS_US: usize = 5;
/// Lengths of the two texts behind.
const WORDS_LENGTHS: usize = 9;
const ENDED: usize = 10;
const ERROR: usize = 12;
const ENDED_BYTES_MAX: usize = 16;
const ERROR_BYTES_MAX: usize = 40;

const FREE: u64 = 0;
const INTENT: u64 = 1;
const FINAL: u64 = 2;
const ATTEMPT: u64 = 3;
const KIND_BITS: u64 = 0xff;
/// The bits of the state that name the valid places.
const TARGET_BIT: u64 = 8;
const USAGE_BIT: u64 = 9;

/// What a slot is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Free,
    /// A request is under way, or was when its process died.
    Intent,
    /// Its numbers are final and not yet durable, or were not known to be.
    Final,
}

/// Where segments end: the number of the last one and its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mark {
    pub segment: u32,
    pub offset: u64,
}

/// The slots of all workers of a process.
#[derive(Debug)]
pub struct Region {
    words: Words,
    workers: usize,
    slots: usize,
}

impl Region {
    /// Slots in memory that ends with the process.
    pub fn anonymous(workers: usize, slots: usize) -> io::Result<Region> {
        Region::of(Words::anonymous(words_of(workers, slots)?)?, workers, slots)
    }

    /// New slots in a file, which must not be there: nothing of an older one may be taken for a record.
    pub fn create(path: &Path, workers: usize, slots: usize) -> io::Result<Region> {
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let region = Region::of(Words::open(path, words_of(workers, slots)?)?, workers, slots)?;
        let boot = boot_id();
        region.words[BOOT].store(boot[0], Relaxed);
        region.words[BOOT + 1].store(boot[1], Relaxed);
        region.words[WORKERS].store(workers as u64, Relaxed);
        region.words[SLOTS].store(slots as u64, Relaxed);
        region.words[MAGIC].store(MAGIC_VALUE, Release);
        Ok(region)
    }

    /// The slots that another process has left. None: the file is not there, or was not made to its end.
    /// Errors: those of the system, and `InvalidData` for a file of another layout or of another length than it
    /// says.
    pub fn open(path: &Path) -> io::Result<Option<Region>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut head = [0; HEAD_BYTES];
        if file.metadata()?.len() < head.len() as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut head, 0)?;
        let word = |at: usize| {
            let bytes: [u8; WORD_BYTES] = std::array::from_fn(|byte| head[at * WORD_BYTES + byte]);
            u64::from_le_bytes(bytes)
        };
        let (workers, slots) = (word(WORKERS), word(SLOTS));
        if word(MAGIC) == 0 {
            return Ok(None);
        }
        let is_sound = word(MAGIC) == MAGIC_VALUE && workers <= WORKERS_MAX && slots <= SLOTS_MAX;
        let len = words_of(workers as usize, slots as usize).ok().filter(|_| is_sound);
        let Some(len) =
            len.filter(|len| file.metadata().is_ok_and(|file| file.len() >= (len * WORD_BYTES) as u64))
        else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "these are no slots of this version"));
        };
        Region::of(Words::open(path, len)?, workers as usize, slots as usize).map(Some)
    }

    fn of(words: Words, workers: usize, slots: usize) -> io::Result<Region> {
        Ok(Region { words, workers, slots })
    }

    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Slots of each worker.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Slot `at` of `worker`; none past the last one.
    pub fn slot(&self, worker: usize, at: u32) -> Option<Slot<'_>> {
        let index = (worker < self.workers && (at as usize) < self.slots)
            .then_some(worker * self.slots + at as usize)?;
        let start = HEAD_WORDS + index * SLOT_WORDS;
        let words = self.words.get(start..start + SLOT_WORDS)?;
        Some(Slot { words: words.first_chunk()? })
    }

    /// Where the segments ended when slots were given back last: no record before it is still in a slot.
    pub fn mark(&self) -> Mark {
        let word = self.words[MARK].load(Acquire);
        Mark { segment: (word >> MARK_OFFSET_BITS) as u32, offset: word & ((1 << MARK_OFFSET_BITS) - 1) }
    }

    /// Says so. The slots must have been given back before.
    pub fn set_mark(&self, mark: Mark) {
        let word = (u64::from(mark.segment) << MARK_OFFSET_BITS) | mark.offset;
        self.words[MARK].store(word, Release);
    }

    /// Whether the mapping was written to in this boot. If not, a power failure may have left any mixture of
    /// older and newer pages.
    pub fn is_of_this_boot(&self) -> bool {
        [self.words[BOOT].load(Relaxed), self.words[BOOT + 1].load(Relaxed)] == boot_id()
    }
}

/// A segment has at most a terabyte, and there are at most 16 million of a seat's.
const MARK_OFFSET_BITS: u32 = 40;

fn words_of(workers: usize, slots: usize) -> io::Result<usize> {
    let is_allowed =
        (1..=WORKERS_MAX as usize).contains(&workers) && (1..=SLOTS_MAX as usize).contains(&slots);
    if !is_allowed {
        let message =
            format!("{workers} workers with {slots} slots; 1 to {WORKERS_MAX} and 1 to {SLOTS_MAX} can be");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    Ok(HEAD_WORDS + workers * slots * SLOT_WORDS)
}

/// The kernel's name for this boot; zeros where it says none.
fn boot_id() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let half = |range| digits.get(range).and_then(|half| u64::from_str_radix(half, 16).ok()).unwrap_or(0);
    [half(0..16), half(16..32)]
}

/// One slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    words: &'a [AtomicU64; SLOT_WORDS],
}

impl Slot<'_> {
    /// What it is at.
    pub fn stage(&self) -> Stage {
        match self.words[STATE].load(Acquire) & KIND_BITS {
            INTENT => Stage::Intent,
            FINAL | ATTEMPT => Stage::Final,
            _ => Stage::Free,
        }
    }

    /// FREE to INTENT.
    pub fn begin(&self, intent: &Intent<'_>) {
        self.put_id(intent.id);
        self.put(STARTED, intent.started_unix_ms);
        self.put(INPUT_ESTIMATE, intent.input_estimate);
        let client_len = self.put_client(intent.client);
        self.put(META, (u64::from(intent.is_stream) << 16) | (client_len << 24));
        self.put_usage(USAGE[0], &Usage::default());
        self.put_target(TARGET[0], &intent.target);
        self.put_texts(intent);
        self.words[STATE].store(INTENT, Release);
    }

    /// Another target is asked, with these holds.
    pub fn retarget(&self, target: &Target<'_>) {
        let state = self.words[STATE].load(Relaxed) ^ (1 << TARGET_BIT);
        self.put_target(TARGET[valid(state, TARGET_BIT)], target);
        self.words[STATE].store(state, Release);
    }

    /// So much has been used so far.
    pub fn progress(&self, usage: &Usage) {
        let state = self.words[STATE].load(Relaxed) ^ (1 << USAGE_BIT);
        self.put_usage(USAGE[valid(state, USAGE_BIT)], usage);
        self.words[STATE].store(state, Release);
    }

    /// INTENT to FINAL.
    pub fn finish(&self, last: &Final<'_>) {
        let state = self.words[STATE].load(Relaxed) ^ (1 << USAGE_BIT);
        self.put_usage(USAGE[valid(state, USAGE_BIT)], &last.usage);
        self.put_final(TARGET[1 - valid(state, TARGET_BIT)], last);
        self.words[STATE].store((state & !KIND_BITS) | FINAL, Release);
    }

    /// FREE to FINAL: an attempt of the request that `of` holds.
    pub fn attempt(&self, of: Slot<'_>, outcome: &AttemptOutcome<'_>) {
        for (to, from) in self.words.iter().zip(of.words).skip(META).take(TARGET[0] - META) {
            to.store(from.load(Relaxed), Relaxed);
        }
        let lengths = self.words[LENGTHS].load(Relaxed);
        for (to, from) in self.words[TEXTS..].iter().zip(&of.words[TEXTS..]).take(text_words(lengths)) {
            to.store(from.load(Relaxed), Relaxed);
        }
        let meta = self.words[META].load(Relaxed) & !0xffff;
        self.put(META, meta | u64::from(outcome.number));
        self.put_usage(USAGE[0], &outcome.usage);
        let target = Target { provider: outcome.provider, model: outcome.model, holds: &[] };
        self.put_target(TARGET[0], &target);
        let mut steps_us = [0; STEPS.len()];
        steps_us[STEPS.len() - 1] = outcome.micros;
        let &AttemptOutcome { usage, cost_pico, is_unpriced, status, error, .. } = outcome;
        let last =
            Final { usage, cost_pico, is_unpriced, status, error, steps_us, attempts: 1, ..Final::default() };
        self.put_final(TARGET[1], &last);
        self.words[STATE].store(ATTEMPT, Release);
    }

    /// Any state to FREE: the record is durable.
    pub fn free(&self) {
        self.words[STATE].store(FREE, Release);
    }

    /// Reads the record into `record`, whose texts' memory is used again. False: the slot is free.
    pub fn read(&self, record: &mut Record) -> bool {
        let state = self.words[STATE].load(Acquire);
        record.kind = match state & KIND_BITS {
            INTENT => Kind::Crash,
            FINAL => Kind::Request,
            ATTEMPT => Kind::Attempt,
            _ => return false,
        };
        let meta = self.take(META);
        record.number = meta as u16;
        record.is_stream = meta & (1 << 16) != 0;
        record.client = self.take_client(meta >> 24);
        let id = self.take_bytes::<ID_BYTES>(ID);
        let id_len = id.iter().position(|&byte| byte == 0).unwrap_or(ID_BYTES);
        set_text(&mut record.id, &id[..id_len]);
        record.started_unix_ms = self.take(STARTED);
        record.input_estimate = self.take(INPUT_ESTIMATE);
        record.usage = self.take_usage(USAGE[valid(state, USAGE_BIT)]);
        self.take_texts(record);
        let target = valid(state, TARGET_BIT);
        self.take_target(TARGET[target], record);
        match record.kind {
            Kind::Crash => self.take_unfinished(record),
            Kind::Request | Kind::Attempt => self.take_final(TARGET[1 - target], record),
        }
        true
    }
}

/// Writing.
impl Slot<'_> {
    fn put(&self, at: usize, value: u64) {
        self.words[at].store(value, Relaxed);
    }

    /// Words used.
    fn put_bytes(&self, at: usize, bytes: &[u8]) -> usize {
        let mut chunks = bytes.chunks_exact(WORD_BYTES);
        let mut next = at;
        for chunk in &mut chunks {
            self.put(next, chunk.try_into().map_or(0, u64::from_le_bytes));
            next += 1;
        }
        let rest = chunks.remainder();
        if !rest.is_empty() {
            let mut last = [0; WORD_BYTES];
            last[..rest.len()].copy_from_slice(rest);
            self.put(next, u64::from_le_bytes(last));
            next += 1;
        }
        next - at
    }

    fn put_id(&self, id: &[u8]) {
        let mut padded = [0; ID_BYTES];
        let len = id.len().min(ID_BYTES);
        padded[..len].copy_from_slice(&id[..len]);
        self.put_bytes(ID, &padded);
    }

    fn put_client(&self, client: Option<IpAddr>) -> u64 {
        match client {
            None => 0,
            Some(IpAddr::V4(address)) => {
                self.put(CLIENT, u64::from(address.to_bits()));
                4
            }
            Some(IpAddr::V6(address)) => {
                self.put(CLIENT, (address.to_bits() >> 64) as u64);
                self.put(CLIENT + 1, address.to_bits() as u64);
                16
            }
        }
    }

    fn put_usage(&self, at: usize, usage: &Usage) {
        // Named one by one: a count that is added to `Usage` is to be added here.
        let &Usage {
            input,
            output,
            cache_read,
            cache_write,
            reasoning,
            total_reported,
            apart: _, // no room is left for it; the cost has it
            caching,
            provenance,
            flawed,
        } = usage;
        self.put(at, pair(input, output));
        self.put(at + 1, pair(cache_read, cache_write));
        self.put(at + 2, pair(reasoning, total_reported));
        let caching = u64::from(caching == Caching::Beside);
        self.put(at + 5, provenance as u64 | (caching << 8) | (u64::from(flawed) << 9));
    }

    fn put_target(&self, at: usize, target: &Target<'_>) {
        let holds = &target.holds[..target.holds.len().min(HOLDS_MAX)];
        let mut next = at + 1;
        for hold in holds {
            self.put(next, u64::from(hold.cell) | (u64::from(hold.tag) << 32));
            self.put(next + 1, hold.amount);
            next += 2;
        }
        let provider = cut(target.provider, NAME_BYTES_MAX);
        next += self.put_bytes(next, provider.as_bytes());
        let room = (at + TARGET_WORDS - next) * WORD_BYTES;
        let model = cut(target.model, room.min(TEXT_BYTES_MAX));
        self.put_bytes(next, model.as_bytes());
        self.put(at, holds.len() as u64 | ((provider.len() as u64) << 8) | ((model.len() as u64) << 16));
    }

    fn put_texts(&self, intent: &Intent<'_>) {
        let texts = [
            (intent.key, NAME_BYTES_MAX),
            (intent.team, NAME_BYTES_MAX),
            (intent.organisation, NAME_BYTES_MAX),
            (intent.surface, SURFACE_BYTES_MAX),
            (intent.dialect, DIALECT_BYTES_MAX),
            (intent.model, TEXT_BYTES_MAX),
            (intent.tags, TEXT_BYTES_MAX),
        ];
        let (mut next, mut lengths) = (TEXTS, 0);
        for (at, (text, bytes_max)) in texts.into_iter().enumerate() {
            let room = (SLOT_WORDS - next) * WORD_BYTES;
            let text = cut(text, bytes_max.min(room));
            next += self.put_bytes(next, text.as_bytes());
            lengths |= (text.len() as u64) << (8 * at);
        }
        self.put(LENGTHS, lengths);
    }

    fn put_final(&self, at: usize, last: &Final<'_>) {
        self.put(at + COST, last.cost_pico.unwrap_or(0));
        let flags = u64::from(last.cost_pico.is_some()) | (u64::from(last.is_unpriced) << 1);
        self.put(at + STATUS, u64::from(last.status) | (flags << 16) | (u64::from(last.attempts) << 32));
        self.put(at + EVENTS, last.events);
        self.put(at + BYTES_IN, last.bytes_in);
        self.put(at + BYTES_OUT, last.bytes_out);
        for (word, two) in last.steps_us.chunks(2).enumerate() {
            let high = two.get(1).copied().unwrap_or(0);
            self.put(at + STEPS_US + word, u64::from(two[0]) | (u64::from(high) << 32));
        }
        let (ended, error) = (cut(last.ended, ENDED_BYTES_MAX), cut(last.error, ERROR_BYTES_MAX));
        self.put_bytes(at + ENDED, ended.as_bytes());
        self.put_bytes(at + ERROR, error.as_bytes());
        self.put(at + WORDS_LENGTHS, ended.len() as u64 | ((error.len() as u64) << 8));
    }
}

/// Reading. Whatever the words hold, some value comes of it.
impl Slot<'_> {
    fn take(&self, at: usize) -> u64 {
        self.words[at].load(Relaxed)
    }

    fn take_bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        for (chunk, word) in bytes.chunks_mut(WORD_BYTES).zip(&self.words[at..]) {
            let word = word.load(Relaxed).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        bytes
    }

    /// The text of `len` bytes at `*at`, which moves behind it; cut at `end`.
    fn take_text(&self, at: &mut usize, len: u64, end: usize, text: &mut String) {
        let room = end.saturating_sub(*at) * WORD_BYTES;
        let len = (len as usize & 0xff).min(room);
        let words = len.div_ceil(WORD_BYTES);
        let mut bytes = [0; TEXT_BYTES_MAX + 1];
        for (chunk, word) in bytes.chunks_exact_mut(WORD_BYTES).zip(&self.words[*at..*at + words]) {
            chunk.copy_from_slice(&word.load(Relaxed).to_le_bytes());
        }
        set_text(text, &bytes[..len]);
        *at += words;
    }

    fn take_client(&self, len: u64) -> Option<IpAddr> {
        match len {
            4 => Some(Ipv4Addr::from_bits(self.take(CLIENT) as u32).into()),
            16 => {
                let high = u128::from(self.take(CLIENT)) << 64;
                Some(Ipv6Addr::from_bits(high | u128::from(self.take(CLIENT + 1))).into())
            }
            _ => None,
        }
    }

    fn take_usage(&self, at: usize) -> Usage {
        let [input, output] = counts(self.take(at));
        let [cache_read, cache_write] = counts(self.take(at + 1));
        let [reasoning, total_reported] = counts(self.take(at + 2));
        let flags = self.take(at + 5);
        let caching = if flags & (1 << 8) == 0 { Caching::Inside } else { Caching::Beside };
        let provenance = match flags & 0xff {
            0 => Provenance::Provider,
            1 => Provenance::Counted,
            _ => Provenance::Estimated,
        };
        let flawed = flags & (1 << 9) != 0;
        Usage {
            input,
            output,
            cache_read,
            cache_write,
            reasoning,
            total_reported,
            apart: Apart::NONE,
            caching,
            provenance,
            flawed,
        }
    }

    fn take_target(&self, at: usize, record: &mut Record) {
        let lengths = self.take(at);
        let holds = (lengths as usize & 0xff).min(HOLDS_MAX);
        let hold = |index: usize| {
            let (name, amount) = (self.take(at + 1 + 2 * index), self.take(at + 2 + 2 * index));
            Hold { cell: name as u32, tag: (name >> 32) as u16, amount }
        };
        record.holds.clear();
        record.holds.extend((0..holds).map(hold));
        let (mut next, end) = (at + 1 + 2 * holds, at + TARGET_WORDS);
        self.take_text(&mut next, lengths >> 8, end, &mut record.provider);
        self.take_text(&mut next, lengths >> 16, end, &mut record.model_sent);
    }

    fn take_texts(&self, record: &mut Record) {
        let lengths = self.take(LENGTHS);
        let mut next = TEXTS;
        let texts = [
            &mut record.key,
            &mut record.team,
            &mut record.organisation,
            &mut record.surface,
            &mut record.dialect,
            &mut record.model,
            &mut record.tags,
        ];
        for (at, text) in texts.into_iter().enumerate() {
            self.take_text(&mut next, lengths >> (8 * at), SLOT_WORDS, text);
        }
    }

    fn take_final(&self, at: usize, record: &mut Record) {
        let status = self.take(at + STATUS);
        record.status = status as u16;
        record.cost_pico = (status & (1 << 16) != 0).then(|| self.take(at + COST));
        record.is_unpriced = status & (1 << 17) != 0;
        record.attempts = (status >> 32) as u32;
        record.events = self.take(at + EVENTS);
        record.bytes_in = self.take(at + BYTES_IN);
        record.bytes_out = self.take(at + BYTES_OUT);
        for (step, micros) in record.steps_us.iter_mut().enumerate() {
            *micros = (self.take(at + STEPS_US + step / 2) >> (32 * (step % 2))) as u32;
        }
        let lengths = self.take(at + WORDS_LENGTHS);
        self.take_text(&mut (at + ENDED), lengths, at + ERROR, &mut record.ended);
        let end = at + ERROR + ERROR_BYTES_MAX / WORD_BYTES;
        self.take_text(&mut (at + ERROR), lengths >> 8, end, &mut record.error);
        // What was held has been settled before.
        record.holds.clear();
    }

    /// What a request without an end says of its end.
    fn take_unfinished(&self, record: &mut Record) {
        let Record {
            cost_pico, is_unpriced, status, attempts, events, bytes_in, bytes_out, steps_us, ..
        } = record;
        (*cost_pico, *is_unpriced, *status, *attempts) = (None, false, 0, 0);
        (*events, *bytes_in, *bytes_out, *steps_us) = (0, 0, 0, [0; STEPS.len()]);
        set_text(&mut record.ended, b"crash");
        record.error.clear();
    }
}

/// Which of two places the state names.
fn valid(state: u64, bit: u64) -> usize {
    (state >> bit & 1) as usize
}

/// Words of the texts with these lengths.
fn text_words(lengths: u64) -> usize {
    lengths.to_le_bytes().iter().map(|&len| usize::from(len).div_ceil(WORD_BYTES)).sum()
}

const UNKNOWN: u32 = u32::MAX;

fn pair(low: Option<u64>, high: Option<u64>) -> u64 {
    let half = |count: Option<u64>| count.map_or(UNKNOWN, |count| count.min(u64::from(UNKNOWN - 1)) as u32);
    u64::from(half(low)) | (u64::from(half(high)) << 32)
}

fn counts(word: u64) -> [Option<u64>; 2] {
    [word as u32, (word >> 32) as u32].map(|half| Some(u64::from(half)).filter(|_| half != UNKNOWN))
}

fn set_text(text: &mut String, bytes: &[u8]) {
    text.clear();
    match std::str::from_utf8(bytes) {
        Ok(valid) => text.push_str(valid),
        Err(_) => text.push_str(&String::from_utf8_lossy(bytes)),
    }
}

#[cfg(test)]
mod tests;
