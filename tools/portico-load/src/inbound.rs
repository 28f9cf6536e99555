//! Cuts a received stream into PDUs, wherever the receives happen to end, and hands them to the session.
//!
//! The data of reads is not collected: it is handed on piece by piece, with its place. Other data segments are staged.

use portico_iscsi::digest::{Crc32c, DigestField};
use portico_iscsi::framing::{Digests, Lengths};
use portico_iscsi::initiator::{Event, Placement, Session, TargetFault};
use portico_iscsi::violation::Violation;
use portico_iscsi::wire::{BHS_BYTES, Bhs, data_segment_length};

/// Who wants to know.
pub(crate) trait Receiver {
    /// Data of a read: the command's user data, and where the bytes belong.
    fn data(&mut self, user: u64, offset: u32, bytes: &[u8]);
    /// A PDU is complete, and means this.
    fn event(&mut self, event: &Event<'_>);
}

/// A PDU that has come in part.
#[derive(Debug)]
pub(crate) struct Inbound {
    bhs: Bhs,
    /// Bytes of `bhs` that are there.
    have: usize,
    /// AHS bytes still to be passed over.
    ahs_left: usize,
    header_digest_left: usize,
    /// The session has seen the header.
    begun: bool,
    /// Bytes of the data segment that are still to come.
    data_left: usize,
    padding_left: usize,
    data_digest_left: usize,
    /// Of header or data, as far as they have come.
    crc: Crc32c,
    /// The digest that came, in part.
    field: DigestField,
    digests: Digests,
    placement: Placement,
    /// How much of a read's data segment has been handed on.
    placed: u32,
    staged: Vec<u8>,
    segment_bytes_max: u32,
}

impl Inbound {
    /// For a connection on which this end takes data segments of so many bytes.
    pub(crate) fn new(segment_bytes_max: u32, digests: Digests) -> Self {
        Self {
            bhs: [0; BHS_BYTES],
            have: 0,
            ahs_left: 0,
            header_digest_left: 0,
            begun: false,
            data_left: 0,
            padding_left: 0,
            data_digest_left: 0,
            crc: Crc32c::new(),
            field: DigestField::default(),
            digests,
            placement: Placement::None,
            placed: 0,
            staged: Vec::new(),
            segment_bytes_max,
        }
    }

    /// Takes what was received.
    ///
    /// # Errors
    /// The target broke a rule; the connection is of no more use.
    pub(crate) fn take(
        &mut self,
        mut bytes: &[u8],
        session: &mut Session,
        receiver: &mut impl Receiver,
    ) -> Result<(), TargetFault> {
        while !bytes.is_empty() {
            if !self.begun {
                bytes = self.header(bytes)?;
                if self.have < BHS_BYTES || self.ahs_left + self.header_digest_left > 0 {
                    return Ok(());
                }
                self.begin(session)?;
            }
            let data = cut(&mut bytes, &mut self.data_left);
            self.place(data, receiver);
            let padding = cut(&mut bytes, &mut self.padding_left);
            if self.digests.data {
                self.crc.update(data);
                self.crc.update(padding);
            }
            self.take_field(&mut bytes, |inbound| &mut inbound.data_digest_left);
            if self.data_left + self.padding_left + self.data_digest_left == 0 {
                self.end(session, receiver)?;
            }
        }
        Ok(())
    }

    /// Takes what belongs to the header: BHS, AHS, digest.
    fn header<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], TargetFault> {
        let mut left = BHS_BYTES - self.have;
        if left > 0 {
            let piece = cut(&mut bytes, &mut left);
            self.bhs[self.have..self.have + piece.len()].copy_from_slice(piece);
            self.have += piece.len();
            if left > 0 {
                return Ok(bytes);
            }
            let lengths = Lengths::of(&self.bhs, self.digests, self.segment_bytes_max)?;
            let narrow = |length: u32| usize::try_from(length).expect("32 bits");
            self.ahs_left = narrow(lengths.ahs_bytes);
            self.header_digest_left = narrow(lengths.header_digest_bytes);
            self.data_left = narrow(lengths.data_segment_bytes);
            self.padding_left = narrow(lengths.padding_bytes);
            self.data_digest_left = narrow(lengths.data_digest_bytes);
            if self.digests.header {
                self.crc = Crc32c::new();
                self.crc.update(&self.bhs);
            }
        }
        let ahs = cut(&mut bytes, &mut self.ahs_left);
        if self.digests.header {
            self.crc.update(ahs);
        }
        self.take_field(&mut bytes, |inbound| &mut inbound.header_digest_left);
        Ok(bytes)
    }

    /// Takes bytes of a digest, of which `left` says how many are to come.
    fn take_field(&mut self, bytes: &mut &[u8], left: impl Fn(&mut Self) -> &mut usize) {
        let piece = cut(bytes, left(self));
        let end = self.field.len() - *left(self);
        self.field[end - piece.len()..end].copy_from_slice(piece);
    }

    /// The header is complete.
    fn begin(&mut self, session: &mut Session) -> Result<(), TargetFault> {
        if self.digests.header && self.crc.field() != self.field {
            return Err(Violation::HeaderDigestWrong.into());
        }
        self.crc = Crc32c::new();
        self.placement = session.receive_header(&self.bhs)?;
        self.placed = 0;
        self.staged.clear();
        self.begun = true;
        Ok(())
    }

    /// The PDU is complete.
    fn end(&mut self, session: &mut Session, receiver: &mut impl Receiver) -> Result<(), TargetFault> {
        let has_data = data_segment_length(&self.bhs) > 0;
        if self.digests.data && has_data && self.crc.field() != self.field {
            return Err(Violation::DataDigestWrong.into());
        }
        (self.have, self.begun) = (0, false);
        receiver.event(&session.receive_done(&self.staged)?);
        Ok(())
    }

    fn place(&mut self, data: &[u8], receiver: &mut impl Receiver) {
        if data.is_empty() {
            return;
        }
        match self.placement {
            Placement::ReadBuffer { user, offset, .. } => {
                receiver.data(user, offset + self.placed, data);
                self.placed += u32::try_from(data.len()).expect("below 2^24");
            }
            Placement::Staging { .. } => self.staged.extend_from_slice(data),
            Placement::None => {}
        }
    }
}

/// As many of `bytes` as there are `left`, off both.
fn cut<'a>(bytes: &mut &'a [u8], left: &mut usize) -> &'a [u8] {
    let (piece, rest) = bytes.split_at(bytes.len().min(*left));
    *bytes = rest;
    *left -= piece.len();
    piece
}

#[cfg(test)]
mod tests {
    use portico_iscsi::digest::field_of;
    use portico_iscsi::initiator::{Command, Direction, Established};
    use portico_iscsi::negotiate::Parameters;
    use portico_iscsi::sn::{CmdSn, CommandWindow, DataSn, StatSn};
    use portico_iscsi::wire::{
        Cid, DataIn, DataInStatus, LunField, NopIn, Residual, TargetPdu, TargetTransferTag, TaskAttribute,
        Tsih,
    };

    use super::*;

    #[derive(Default)]
    struct Heard {
        data: Vec<u8>,
        events: Vec<String>,
    }

    impl Receiver for Heard {
        fn data(&mut self, user: u64, offset: u32, bytes: &[u8]) {
            assert_eq!((user, usize::try_from(offset).unwrap()), (7, self.data.len()));
            self.data.extend_from_slice(bytes);
        }
        fn event(&mut self, event: &Event<'_>) {
            self.events.push(match event {
                Event::Completed(completion) => format!("{} bytes", completion.moved),
                other => format!("{other:?}"),
            });
        }
    }

    const ALL: [Digests; 3] =
        [Digests::NONE, Digests { header: true, data: false }, Digests { header: true, data: true }];

    fn session() -> Session {
        let window = CommandWindow::new(CmdSn(1), CmdSn(32)).unwrap();
        let parameters = Parameters { own_max_recv_data_segment_length: 8192, ..Parameters::default() };
        let established = Established {
            parameters,
            discovery: false,
            tsih: Tsih(1),
            cid: Cid(0),
            window,
            expected_stat_sn: StatSn(1),
            portal_group_tag: None,
            target_alias: None,
            said: Vec::new(),
        };
        let mut session = Session::new(&established, 4);
        let cdb = [0x28, 0, 0, 0, 0, 0, 0, 0, 2, 0];
        let tag = session.submit(&Command {
            lun: LunField::default(),
            cdb: &cdb,
            direction: Direction::Read,
            expected_length: 1001,
            attribute: TaskAttribute::Simple,
            immediate: false,
            user: 7,
        });
        assert!(tag.is_some());
        assert!(session.next_pdu(&mut [0; BHS_BYTES]).is_some());
        session
    }

    /// A read of 1,001 bytes in two PDUs, with an odd length and so padding, and a ping between them.
    fn stream(session: &Session, digests: Digests) -> Vec<u8> {
        let (tag, _) = session.outstanding().next().unwrap();
        let part = |data_sn: u32, buffer_offset: u32, length: u32, status: Option<DataInStatus>| {
            TargetPdu::DataIn(DataIn {
                is_final: status.is_some(),
                acknowledge: false,
                data_segment_length: length,
                lun: LunField::default(),
                initiator_task_tag: tag.initiator_task_tag(),
                target_transfer_tag: TargetTransferTag::RESERVED,
                status,
                expected_cmd_sn: CmdSn(2),
                maximum_cmd_sn: CmdSn(32),
                data_sn: DataSn(data_sn),
                buffer_offset,
            })
        };
        let status = DataInStatus { status: 0, stat_sn: StatSn(1), residual: Residual::None };
        let ping = TargetPdu::NopIn(NopIn {
            data_segment_length: 0,
            lun: LunField::default(),
            initiator_task_tag: portico_iscsi::wire::InitiatorTaskTag::RESERVED,
            target_transfer_tag: TargetTransferTag(9),
            stat_sn: StatSn(1),
            expected_cmd_sn: CmdSn(2),
            maximum_cmd_sn: CmdSn(32),
        });
        let mut stream = Vec::new();
        for (pdu, data) in [(part(0, 0, 500, None), 500), (ping, 0), (part(1, 500, 501, Some(status)), 501)] {
            let mut bhs = [0; BHS_BYTES];
            pdu.emit(&mut bhs);
            stream.extend_from_slice(&bhs);
            stream.extend(digests.of_header(&bhs).iter().flatten());
            let data_at = stream.len();
            stream.extend((0..data).map(|at: u32| u8::try_from(at % 251).unwrap()));
            stream.resize(stream.len().next_multiple_of(4), 0xff);
            if digests.data && data > 0 {
                let field = field_of(&stream[data_at..]);
                stream.extend(field);
            }
        }
        stream
    }

    #[test]
    fn a_stream_means_the_same_however_it_is_cut() {
        let whole: Vec<u8> = (0..500).chain(0..501).map(|at: u32| u8::try_from(at % 251).unwrap()).collect();
        let lengths = [1, 7, 47, 48, 49, 500, 10_000];
        for (digests, length) in ALL.iter().flat_map(|digests| lengths.map(|length| (*digests, length))) {
            let mut session = session();
            let stream = stream(&session, digests);
            let (mut inbound, mut heard) = (Inbound::new(8192, digests), Heard::default());
            for piece in stream.chunks(length) {
                inbound.take(piece, &mut session, &mut heard).unwrap();
            }
            assert_eq!(heard.data, whole, "in pieces of {length}");
            assert_eq!(heard.events, ["None", "None", "1001 bytes"]);
            assert!(session.has_work(), "the ping is to be answered");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let digests = Digests { header: true, data: true };
        let length = stream(&session(), digests).len();
        for at in 0..length {
            let mut session = session();
            let mut stream = stream(&session, digests);
            stream[at] ^= 1 << (at % 8);
            let mut inbound = Inbound::new(8192, digests);
            // What makes a header longer may wait for bytes that never come; nothing wrong is taken for right.
            let mut heard = Heard::default();
            let taken = inbound.take(&stream, &mut session, &mut heard);
            assert!(taken.is_err() || heard.events.len() < 3, "byte {at}");
        }
    }

    #[test]
    fn a_segment_that_is_longer_than_this_end_takes_is_a_fault() {
        let mut session = session();
        let stream = stream(&session, Digests::NONE);
        let mut inbound = Inbound::new(499, Digests::NONE);
        assert!(inbound.take(&stream, &mut session, &mut Heard::default()).is_err());
    }
}
