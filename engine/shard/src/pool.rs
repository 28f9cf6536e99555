//! Things that are made once and used again: messages, lists of segments. What is here keeps its
//! memory, so that a warm shard allocates nothing.

use portico_backstores::Completion;
use portico_ring::{Message, MessageLimits, SEGMENTS_MAX, Segments};

use crate::inbound::RECEIVE_SEGMENTS;
use crate::task::Atomic;

/// Parts of one message.
pub const MESSAGE_PARTS: usize = 512;

/// Segments of a list for a receive into few places.
const SHORT_SEGMENTS: usize = 2;

const _: () = assert!(SHORT_SEGMENTS < RECEIVE_SEGMENTS, "the lists are told apart by their room");

/// Bytes of headers of one message.
pub const MESSAGE_HEADER_BYTES: usize = 256 * 48;

/// The pool of one shard.
#[derive(Default)]
pub struct Pool {
    messages: Vec<Message>,
    lists: Vec<Segments>,
    receive_lists: Vec<Segments>,
    short_lists: Vec<Segments>,
    #[expect(clippy::vec_box, reason = "the box is what is kept")]
    atomics: Vec<Box<Atomic>>,
    /// Meters on their way to control.
    pub(crate) full_meters: Vec<portico_model::meter::UnitMeter>,
    /// Where the device server writes its data-in.
    pub scratch: Vec<u8>,
    /// For completions that are taken in bulk.
    pub done: Vec<Completion<Segments>>,
}

impl Pool {
    /// An empty message.
    pub fn message(&mut self) -> Message {
        let limits = MessageLimits { parts: MESSAGE_PARTS, header_bytes: MESSAGE_HEADER_BYTES };
        self.messages.pop().unwrap_or_else(|| Message::new(limits))
    }

    /// Takes a message back; what it holds is let go.
    pub fn keep_message(&mut self, mut message: Message) {
        message.clear();
        self.messages.push(message);
    }

    /// An empty list.
    pub fn list(&mut self) -> Segments {
        self.lists.pop().unwrap_or_else(|| Segments::with_capacity(SEGMENTS_MAX))
    }

    /// Takes a list back; what it holds is let go.
    pub fn keep_list(&mut self, mut list: Segments) {
        list.clear();
        self.lists.push(list);
    }

    /// Takes a list back, if there is one.
    pub fn keep_list_if(&mut self, list: Option<Segments>) {
        if let Some(list) = list {
            self.keep_list(list);
        }
    }

    /// An empty list for a receive into few places: what thousands of idle connections have.
    pub fn short_receive_list(&mut self) -> Segments {
        self.short_lists.pop().unwrap_or_else(|| Segments::with_capacity(SHORT_SEGMENTS))
    }

    /// An empty list for a receive.
    pub fn receive_list(&mut self) -> Segments {
        self.receive_lists.pop().unwrap_or_else(|| Segments::with_capacity(RECEIVE_SEGMENTS))
    }

    /// Takes a list of a receive back.
    pub fn keep_receive_list(&mut self, mut list: Segments) {
        list.clear();
        if list.capacity() < RECEIVE_SEGMENTS {
            self.short_lists.push(list);
        } else {
            self.receive_lists.push(list);
        }
    }

    /// A command that has its blocks for itself, with the memory of one before it.
    pub fn atomic(&mut self) -> Box<Atomic> {
        self.atomics.pop().unwrap_or_else(|| Box::new(Atomic::default()))
    }

    /// Takes it back; a long one's data are let go.
    pub fn keep_atomic(&mut self, mut atomic: Box<Atomic>) {
        atomic.clear();
        self.atomics.push(atomic);
    }
}
