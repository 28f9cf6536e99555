//! Two rings for tests: one whose operations end as the test says, and one that does real I/O, at once.

use portico_backstores::{Completion, FileHandle, Queue, Request, Ring, Slot, Source, Submitted, Tag};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub(crate) type Segments = Vec<Vec<u8>>;

/// An operation that a queue has begun.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    Read { offset_bytes: u64, skip_bytes: usize },
    Write { offset_bytes: u64, skip_bytes: usize, durable: bool },
    WriteUntorn { offset_bytes: u64, durable: bool },
    Clear { offset_bytes: u64, length_bytes: u64, deallocate: bool },
    Sync,
}

/// A ring whose operations end when and how the test says.
pub(crate) struct Scripted {
    pub(crate) begun: VecDeque<(Slot, Begun, Option<Segments>)>,
    /// Operations that it takes before it is full.
    pub(crate) room: usize,
    pub(crate) released: usize,
}

impl Scripted {
    pub(crate) fn new() -> Self {
        Self { begun: VecDeque::new(), room: usize::MAX, released: 0 }
    }

    /// What was begun and has not ended, oldest first.
    pub(crate) fn operations(&self) -> Vec<&Begun> {
        self.begun.iter().map(|(_, begun, _)| begun).collect()
    }

    /// Ends the oldest operation with `result`.
    pub(crate) fn end<Q: Queue<Segments>>(
        &mut self,
        queue: &mut Q,
        result: Result<u32, i32>,
    ) -> Option<Completion<Segments>> {
        let (slot, _, segments) = self.begun.pop_front().expect("something was begun");
        queue.completed(self, slot, result, segments)
    }

    fn begin(
        &mut self,
        slot: Slot,
        begun: Begun,
        segments: Option<Segments>,
    ) -> Result<(), Option<Segments>> {
        if self.begun.len() >= self.room {
            return Err(segments);
        }
        assert!(self.begun.iter().all(|(other, ..)| *other != slot), "{slot:?} names two operations");
        self.begun.push_back((slot, begun, segments));
        Ok(())
    }
}

impl Ring for Scripted {
    type Segments = Segments;

    fn adopt(&mut self, source: Source) -> io::Result<FileHandle> {
        match source {
            Source::Simulated(file) => Ok(FileHandle(file)),
            Source::Descriptor(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn release(&mut self, _file: FileHandle) {
        self.released += 1;
    }

    fn read(
        &mut self,
        _file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
    ) -> Result<(), Segments> {
        self.begin(slot, Begun::Read { offset_bytes, skip_bytes }, Some(segments)).map_err(Option::unwrap)
    }

    fn write(
        &mut self,
        _file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
        durable: bool,
    ) -> Result<(), Segments> {
        let begun = Begun::Write { offset_bytes, skip_bytes, durable };
        self.begin(slot, begun, Some(segments)).map_err(Option::unwrap)
    }

    fn write_untorn(
        &mut self,
        _file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        durable: bool,
    ) -> Result<(), Segments> {
        let begun = Begun::WriteUntorn { offset_bytes, durable };
        self.begin(slot, begun, Some(segments)).map_err(Option::unwrap)
    }

    fn clear(
        &mut self,
        _: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        length_bytes: u64,
        deallocate: bool,
    ) -> bool {
        self.begin(slot, Begun::Clear { offset_bytes, length_bytes, deallocate }, None).is_ok()
    }

    fn sync(&mut self, _file: FileHandle, slot: Slot) -> bool {
        self.begin(slot, Begun::Sync, None).is_ok()
    }

    fn length_bytes(segments: &Segments) -> usize {
        segments.iter().map(Vec::len).sum()
    }

    fn slices(segments: &Segments) -> impl Iterator<Item = &[u8]> {
        segments.iter().map(Vec::as_slice)
    }

    fn slices_mut(segments: &mut Segments) -> impl Iterator<Item = &mut [u8]> {
        segments.iter_mut().map(Vec::as_mut_slice)
    }
}

/// A ring that does what it is asked at once, piece by piece, and tells when it is pumped.
pub(crate) struct Blocking {
    files: Vec<Option<File>>,
    ended: VecDeque<(Slot, Result<u32, i32>, Option<Segments>)>,
    /// Bytes that one operation moves at most, so that longer ones are short.
    pub(crate) piece_max: usize,
}

impl Blocking {
    pub(crate) fn new() -> Self {
        Self { files: Vec::new(), ended: VecDeque::new(), piece_max: usize::MAX }
    }

    /// Submits `request` and pumps until it is done.
    pub(crate) fn run<Q: Queue<Segments>>(
        &mut self,
        queue: &mut Q,
        request: Request<Segments>,
    ) -> Completion<Segments> {
        const TAG: Tag = Tag(7);
        let completion = match queue.submit(self, TAG, request).unwrap() {
            Submitted::Done(completion) => completion,
            Submitted::InFlight => loop {
                let (slot, result, segments) = self.ended.pop_front().expect("the request goes on");
                if let Some(completion) = queue.completed(self, slot, result, segments) {
                    break completion;
                }
            },
        };
        assert_eq!(completion.tag, TAG);
        completion
    }

    /// Open files.
    pub(crate) fn files(&self) -> usize {
        self.files.iter().flatten().count()
    }

    fn file(&self, file: FileHandle) -> &File {
        self.files[usize::try_from(file.0).unwrap()].as_ref().expect("it is open")
    }

    fn end(&mut self, slot: Slot, result: io::Result<usize>, segments: Option<Segments>) {
        let result = result.map(|n| u32::try_from(n).unwrap()).map_err(|e| e.raw_os_error().unwrap());
        self.ended.push_back((slot, result, segments));
    }
}

/// The part of each segment that is neither before `skip` nor after `most` more bytes: segment, from, to.
fn pieces(segments: &Segments, skip: usize, most: usize) -> Vec<(usize, usize, usize)> {
    let (mut at, end) = (0, skip.saturating_add(most));
    let mut pieces = Vec::new();
    for (index, segment) in segments.iter().enumerate() {
        let (from, to) = (skip.clamp(at, at + segment.len()) - at, end.clamp(at, at + segment.len()) - at);
        at += segment.len();
        if from < to {
            pieces.push((index, from, to));
        }
    }
    pieces
}

impl Ring for Blocking {
    type Segments = Segments;

    fn adopt(&mut self, source: Source) -> io::Result<FileHandle> {
        let Source::Descriptor(file) = source else { return Err(io::ErrorKind::Unsupported.into()) };
        self.files.push(Some(file.into()));
        Ok(FileHandle(u64::try_from(self.files.len() - 1).unwrap()))
    }

    fn release(&mut self, file: FileHandle) {
        self.files[usize::try_from(file.0).unwrap()] = None;
    }

    fn read(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        mut segments: Segments,
        skip_bytes: usize,
    ) -> Result<(), Segments> {
        let mut offset = offset_bytes + u64::try_from(skip_bytes).unwrap();
        let mut result = Ok(0);
        for (index, from, to) in pieces(&segments, skip_bytes, self.piece_max) {
            let read = self.file(file).read_at(&mut segments[index][from..to], offset);
            offset += u64::try_from(to - from).unwrap();
            result = result.and_then(|sum| read.map(|n| sum + n));
        }
        self.end(slot, result, Some(segments));
        Ok(())
    }

    fn write(
        &mut self,
        file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        skip_bytes: usize,
        durable: bool,
    ) -> Result<(), Segments> {
        let mut offset = offset_bytes + u64::try_from(skip_bytes).unwrap();
        let mut result = Ok(0);
        for (index, from, to) in pieces(&segments, skip_bytes, self.piece_max) {
            let written = self.file(file).write_at(&segments[index][from..to], offset);
            offset += u64::try_from(to - from).unwrap();
            result = result.and_then(|sum| written.map(|n| sum + n));
        }
        if durable {
            self.file(file).sync_data().unwrap();
        }
        self.end(slot, result, Some(segments));
        Ok(())
    }

    fn write_untorn(
        &mut self,
        _file: FileHandle,
        slot: Slot,
        offset_bytes: u64,
        segments: Segments,
        durable: bool,
    ) -> Result<(), Segments> {
        let _ = (slot, offset_bytes, segments, durable);
        unreachable!("no file here is written untorn")
    }

    fn clear(&mut self, file: FileHandle, slot: Slot, offset: u64, length: u64, deallocate: bool) -> bool {
        use rustix::fs::{FallocateFlags, fallocate};
        let how = if deallocate { FallocateFlags::PUNCH_HOLE } else { FallocateFlags::ZERO_RANGE };
        let result = fallocate(self.file(file), how | FallocateFlags::KEEP_SIZE, offset, length);
        self.end(slot, result.map(|()| 0).map_err(io::Error::from), None);
        true
    }

    fn sync(&mut self, file: FileHandle, slot: Slot) -> bool {
        let result = self.file(file).sync_data().map(|()| 0);
        self.end(slot, result, None);
        true
    }

    fn length_bytes(segments: &Segments) -> usize {
        Scripted::length_bytes(segments)
    }

    fn slices(segments: &Segments) -> impl Iterator<Item = &[u8]> {
        Scripted::slices(segments)
    }

    fn slices_mut(segments: &mut Segments) -> impl Iterator<Item = &mut [u8]> {
        Scripted::slices_mut(segments)
    }
}
