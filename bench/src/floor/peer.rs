//! A session as a floor sees it: bytes in, answers out. It reads of each header what the answer needs, at fixed places
//! (RFC 7143 §11.3, §11.7), and believes the rest.

use portico_iscsi::sn::{CmdSn, StatSn};
use portico_iscsi::wire::BHS_BYTES;

use super::batch::{Answer, Batch};
use super::{BLOCK_BYTES, Memory};

/// What was agreed.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Of the first answer.
    pub stat_sn: StatSn,
    /// Of the first command.
    pub cmd_sn: CmdSn,
    /// Commands that may come at once.
    pub window: u16,
    /// The longest data segment that the initiator takes, whole blocks of it.
    pub segment_bytes_max: u32,
    /// The most data that one R2T asks for.
    pub burst_bytes_max: u32,
    /// The unit's size.
    pub size_bytes: u64,
}

/// A session in full feature phase.
#[derive(Debug)]
pub struct Peer {
    terms: Terms,
    stat_sn: u32,
    expected_cmd_sn: u32,
    /// The header at hand, and how much of it has come.
    header: [u8; BHS_BYTES],
    header_bytes: usize,
    /// Bytes of data that are still to be swallowed.
    swallow_bytes: usize,
    /// Writes whose data have not all come.
    writes: Vec<Write>,
    out: bool,
}

#[derive(Clone, Copy, Debug)]
struct Write {
    task_tag: [u8; 4],
    received: u32,
    total: u32,
    r2ts: u32,
}

impl Peer {
    /// A session from which nothing has come.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            stat_sn: terms.stat_sn.0,
            expected_cmd_sn: terms.cmd_sn.0,
            header: [0; BHS_BYTES],
            header_bytes: 0,
            swallow_bytes: 0,
            writes: Vec::with_capacity(usize::from(terms.window)),
            out: false,
        }
    }

    /// Takes what was received, and appends what it is answered with.
    ///
    /// # Errors
    /// What a floor does not serve: the connection is closed.
    pub fn receive(&mut self, mut bytes: &[u8], memory: &Memory, batch: &mut Batch) -> Result<(), String> {
        while !bytes.is_empty() && !self.out {
            if self.swallow_bytes > 0 {
                let swallowed = self.swallow_bytes.min(bytes.len());
                self.swallow_bytes -= swallowed;
                bytes = &bytes[swallowed..];
                continue;
            }
            let wanted = (BHS_BYTES - self.header_bytes).min(bytes.len());
            self.header[self.header_bytes..self.header_bytes + wanted].copy_from_slice(&bytes[..wanted]);
            self.header_bytes += wanted;
            bytes = &bytes[wanted..];
            if self.header_bytes == BHS_BYTES {
                self.header_bytes = 0;
                let header = self.header;
                self.understand(&header, memory, batch)?;
            }
        }
        batch.is_last |= self.out;
        Ok(())
    }

    fn understand(
        &mut self,
        header: &[u8; BHS_BYTES],
        memory: &Memory,
        batch: &mut Batch,
    ) -> Result<(), String> {
        let segment = u32::from_be_bytes([0, header[5], header[6], header[7]]);
        let ahs_bytes = usize::from(header[4]) * 4;
        self.swallow_bytes = ahs_bytes + (segment as usize).next_multiple_of(4);
        let is_immediate = header[0] & IMMEDIATE != 0;
        match header[0] & OPCODE {
            SCSI_COMMAND => {
                self.count(header, is_immediate);
                self.command(header, segment, memory, batch)
            }
            DATA_OUT => self.data_out(header, segment, batch),
            NOP_OUT => {
                if word(header, TASK_TAG) != RESERVED {
                    self.count(header, is_immediate);
                    self.answer_without_data(header, NOP_IN, batch);
                }
                Ok(())
            }
            LOGOUT => {
                self.count(header, is_immediate);
                self.answer_without_data(header, LOGOUT_RESPONSE, batch);
                self.out = true;
                Ok(())
            }
            opcode => Err(format!("a floor knows no opcode {opcode:#x}")),
        }
    }

    fn count(&mut self, header: &[u8; BHS_BYTES], is_immediate: bool) {
        if !is_immediate {
            self.expected_cmd_sn = word(header, CMD_SN).wrapping_add(1);
        }
    }

    fn command(
        &mut self,
        header: &[u8; BHS_BYTES],
        segment: u32,
        memory: &Memory,
        batch: &mut Batch,
    ) -> Result<(), String> {
        let cdb = &header[32..48];
        let lba = match cdb[0] {
            READ_10 => u64::from(word(header, 34)),
            READ_16 => u64::from_be_bytes(cdb[2..10].try_into().expect("8 bytes")),
            WRITE_10 | WRITE_16 => {
                return self.write(header, segment, batch);
            }
            TEST_UNIT_READY => {
                self.status(header, 0, batch);
                return Ok(());
            }
            SERVICE_ACTION_IN_16 if cdb[1] & 0x1f == READ_CAPACITY_16 => {
                self.capacity(header, batch);
                return Ok(());
            }
            code => return Err(format!("a floor knows no operation code {code:#x}")),
        };
        let length = word(header, EXPECTED_LENGTH);
        let place = memory.place(lba, length as usize).ok_or("a read beyond the end, or a very long one")?;
        let mut sent = 0;
        while sent < length || length == 0 {
            let piece = (length - sent).min(self.terms.segment_bytes_max);
            let is_final = sent + piece == length;
            let from = place + sent as usize;
            let data_sn = sent / self.terms.segment_bytes_max;
            let answer = Answer::header(&self.data_in(header, [piece, sent, data_sn], is_final));
            batch.push(answer, from..from + piece as usize);
            sent += piece;
            if is_final {
                break;
            }
        }
        Ok(())
    }

    /// Data-In with the numbers of the piece: its length, its offset, its DataSN.
    fn data_in(
        &mut self,
        header: &[u8; BHS_BYTES],
        [length, offset, data_sn]: [u32; 3],
        is_final: bool,
    ) -> [u8; BHS_BYTES] {
        let mut bhs = self.begin(header, DATA_IN, is_final);
        bhs[1] = if is_final { FINAL | STATUS_PRESENT } else { 0 };
        bhs[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        put(&mut bhs, TRANSFER_TAG, RESERVED);
        put(&mut bhs, DATA_SN, data_sn);
        put(&mut bhs, BUFFER_OFFSET, offset);
        bhs
    }

    fn write(&mut self, header: &[u8; BHS_BYTES], segment: u32, batch: &mut Batch) -> Result<(), String> {
        let task_tag = header[16..20].try_into().expect("4 bytes");
        let total = word(header, EXPECTED_LENGTH);
        let write = Write { task_tag, received: segment, total, r2ts: 0 };
        self.go_on(header, write, header[1] & FINAL != 0, batch)
    }

    fn data_out(&mut self, header: &[u8; BHS_BYTES], segment: u32, batch: &mut Batch) -> Result<(), String> {
        let at = self.writes.iter().position(|write| write.task_tag == header[16..20]);
        let mut write = self.writes.swap_remove(at.ok_or("data of no write")?);
        write.received = write.received.saturating_add(segment);
        self.go_on(header, write, header[1] & FINAL != 0, batch)
    }

    /// What follows when `write` has got some data: its end, an R2T, or nothing while a burst goes on.
    fn go_on(
        &mut self,
        header: &[u8; BHS_BYTES],
        mut write: Write,
        burst_is_over: bool,
        batch: &mut Batch,
    ) -> Result<(), String> {
        if write.received >= write.total {
            self.status(header, write.r2ts, batch);
            return Ok(());
        }
        if burst_is_over {
            let mut bhs = self.begin(header, R2T, false);
            bhs[1] = FINAL;
            put(&mut bhs, STAT_SN, self.stat_sn);
            put(&mut bhs, TRANSFER_TAG, 1);
            put(&mut bhs, DATA_SN, write.r2ts);
            put(&mut bhs, BUFFER_OFFSET, write.received);
            put(&mut bhs, DESIRED_LENGTH, (write.total - write.received).min(self.terms.burst_bytes_max));
            write.r2ts += 1;
            batch.push(Answer::header(&bhs), 0..0);
        }
        if self.writes.len() == usize::from(self.terms.window) {
            return Err("more writes than the window has room for".to_owned());
        }
        self.writes.push(write);
        Ok(())
    }

    /// SCSI Response with GOOD.
    fn status(&mut self, header: &[u8; BHS_BYTES], data_pdus: u32, batch: &mut Batch) {
        let mut bhs = self.begin(header, SCSI_RESPONSE, true);
        bhs[1] = FINAL;
        put(&mut bhs, DATA_SN, data_pdus);
        batch.push(Answer::header(&bhs), 0..0);
    }

    fn answer_without_data(&mut self, header: &[u8; BHS_BYTES], opcode: u8, batch: &mut Batch) {
        let mut bhs = self.begin(header, opcode, true);
        bhs[1] = FINAL;
        if opcode == NOP_IN {
            put(&mut bhs, TRANSFER_TAG, RESERVED);
        }
        batch.push(Answer::header(&bhs), 0..0);
    }

    /// SBC-4 §5.17.2, with GOOD in the same PDU.
    fn capacity(&mut self, header: &[u8; BHS_BYTES], batch: &mut Batch) {
        const BYTES: u32 = 32;
        let length = word(header, EXPECTED_LENGTH).min(BYTES);
        let mut answer = Answer::header(&self.data_in(header, [length, 0, 0], true));
        let last = (self.terms.size_bytes / BLOCK_BYTES).saturating_sub(1);
        answer.bytes[48..56].copy_from_slice(&last.to_be_bytes());
        answer.bytes[58..60].copy_from_slice(&[2, 0]);
        answer.length += (length as usize).next_multiple_of(4);
        batch.push(answer, 0..0);
    }

    /// A header to the same task, with the numbers that all of them carry.
    fn begin(&mut self, header: &[u8; BHS_BYTES], opcode: u8, has_status: bool) -> [u8; BHS_BYTES] {
        let mut bhs = [0; BHS_BYTES];
        bhs[0] = opcode;
        bhs[16..20].copy_from_slice(&header[16..20]);
        if has_status {
            put(&mut bhs, STAT_SN, self.stat_sn);
            self.stat_sn = self.stat_sn.wrapping_add(1);
        }
        put(&mut bhs, EXPECTED_CMD_SN, self.expected_cmd_sn);
        let window = u32::from(self.terms.window);
        put(&mut bhs, MAXIMUM_CMD_SN, self.expected_cmd_sn.wrapping_add(window - 1));
        bhs
    }
}

#[inline]
fn word(header: &[u8; BHS_BYTES], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[inline]
fn put(bhs: &mut [u8; BHS_BYTES], at: usize, value: u32) {
    bhs[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

const IMMEDIATE: u8 = 0x40;
const OPCODE: u8 = 0x3f;
const FINAL: u8 = 0x80;
const STATUS_PRESENT: u8 = 0x01;
const NOP_OUT: u8 = 0x00;
const SCSI_COMMAND: u8 = 0x01;
const DATA_OUT: u8 = 0x05;
const LOGOUT: u8 = 0x06;
const NOP_IN: u8 = 0x20;
const SCSI_RESPONSE: u8 = 0x21;
const DATA_IN: u8 = 0x25;
const LOGOUT_RESPONSE: u8 = 0x26;
const R2T: u8 = 0x31;
const TASK_TAG: usize = 16;
const EXPECTED_LENGTH: usize = 20;
const TRANSFER_TAG: usize = 20;
const CMD_SN: usize = 24;
const STAT_SN: usize = 24;
const EXPECTED_CMD_SN: usize = 28;
const MAXIMUM_CMD_SN: usize = 32;
const DATA_SN: usize = 36;
const BUFFER_OFFSET: usize = 40;
const DESIRED_LENGTH: usize = 44;
const RESERVED: u32 = 0xffff_ffff;
const TEST_UNIT_READY: u8 = 0x00;
const READ_10: u8 = 0x28;
const WRITE_10: u8 = 0x2a;
const READ_16: u8 = 0x88;
const WRITE_16: u8 = 0x8a;
const SERVICE_ACTION_IN_16: u8 = 0x9e;
const READ_CAPACITY_16: u8 = 0x10;
