//! Login Request and Login Response (RFC 7143 §11.12, §11.13); the keys in their data segment are
//! `crate::text`.

use super::field::{Half, Octet, Octets, Word};
use super::{
    Bhs, Cid, FLAGS, INITIATOR_TASK_TAG, InitiatorTaskTag, Isid, Tsih, begin, data_segment_length, flag,
    has_flag, refuse_ahs, task_tag,
};
use crate::sn::{CmdSn, StatSn};
use crate::violation::Violation;

//       Request                                                          Response
//    0 |.|1| 0x03      |T|C|.|.|CSG|NSG| Version-max   | Version-min   | |.|.| 0x23 |T|C|.|.|CSG|NSG| -max | -active |
//    4 |TotalAHSLength | DataSegmentLength                             |   the same
//    8 | ISID                                                          |   the same
//   12 |                               | TSIH                          |   the same
//   16 | Initiator Task Tag                                            |   the same
//   20 | CID                           | Reserved                      |   Reserved
//   24 | CmdSN                                                         |   StatSN
//   28 | ExpStatSN or Reserved                                         |   ExpCmdSN
//   32 | Reserved                                                      |   MaxCmdSN
//   36 | Reserved                                                      |   Status-Class | Status-Detail | Reserved
//   40 | Reserved                                                      |   Reserved
const VERSION_MAX: Octet = Octet::at(2);
const VERSION_MIN: Octet = Octet::at(3);
const VERSION_ACTIVE: Octet = Octet::at(3);
const ISID: Octets<6> = Octets::at(8);
const TSIH: Half = Half::at(14);
const CID: Half = Half::at(20);
const CMD_SN: Word = Word::at(24);
const EXP_STAT_SN: Word = Word::at(28);
const STAT_SN: Word = Word::at(24);
const EXP_CMD_SN: Word = Word::at(28);
const MAX_CMD_SN: Word = Word::at(32);
const STATUS_CLASS: Octet = Octet::at(36);
const STATUS_DETAIL: Octet = Octet::at(37);

const TRANSIT: u8 = 0x80;
const CONTINUE: u8 = 0x40;
const CURRENT_STAGE_SHIFT: u32 = 2;
const STAGE_MASK: u8 = 0x03;

/// The only version of the protocol there is (§11.12.4).
pub const VERSION: u8 = 0x00;

/// A stage of the login phase, or what comes after it (§11.12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// 0
    SecurityNegotiation,
    /// 1
    LoginOperationalNegotiation,
    /// 3
    FullFeaturePhase,
}

impl Stage {
    fn parse(code: u8) -> Result<Self, Violation> {
        match code {
            0 => Ok(Self::SecurityNegotiation),
            1 => Ok(Self::LoginOperationalNegotiation),
            3 => Ok(Self::FullFeaturePhase),
            stage => Err(Violation::ReservedLoginStage { stage }),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::SecurityNegotiation => 0,
            Self::LoginOperationalNegotiation => 1,
            Self::FullFeaturePhase => 3,
        }
    }
}

/// Byte 1 of both PDUs: T, C, CSG, NSG.
#[derive(Clone, Copy)]
struct Progress {
    current: Stage,
    next: Option<Stage>,
    continues: bool,
}

impl Progress {
    /// Legal transitions are 0→1, 0→3 and 1→3; C forbids T (§11.12.1 to §11.12.3).
    fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        let flags = FLAGS.read(bhs);
        let current = Stage::parse(flags >> CURRENT_STAGE_SHIFT & STAGE_MASK)?;
        if current == Stage::FullFeaturePhase {
            return Err(Violation::LoginInFullFeatureStage);
        }
        // Without T, NSG is reserved.
        let next = if has_flag(bhs, TRANSIT) { Some(Stage::parse(flags & STAGE_MASK)?) } else { None };
        let continues = has_flag(bhs, CONTINUE);
        match next {
            Some(_) if continues => Err(Violation::TransitWithContinue),
            Some(next) if next <= current => Err(Violation::LoginStageBackward { current, next }),
            _ => Ok(Self { current, next, continues }),
        }
    }

    fn flags(self) -> u8 {
        let next = self.next.map_or(0, |stage| TRANSIT | stage.code());
        flag(self.continues, CONTINUE) | self.current.code() << CURRENT_STAGE_SHIFT | next
    }
}

/// Login Request (§11.12). It is always immediate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginRequest {
    /// CSG.
    pub current_stage: Stage,
    /// NSG where T is set: the initiator is ready to go there.
    pub next_stage: Option<Stage>,
    /// C: the text goes on in the next request.
    pub continues: bool,
    /// The highest version that the initiator speaks.
    pub version_max: u8,
    /// The lowest.
    pub version_min: u8,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// ISID.
    pub isid: Isid,
    /// TSIH; 0 for a new session.
    pub tsih: Tsih,
    /// The same in all requests of one login phase.
    pub initiator_task_tag: InitiatorTaskTag,
    /// CID.
    pub cid: Cid,
    /// The CmdSN that the first non-immediate command will carry, in a leading login (§11.12.8).
    pub cmd_sn: CmdSn,
    /// ExpStatSN; reserved in the first request of a connection that replaces none.
    pub expected_stat_sn: StatSn,
}

impl LoginRequest {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x03;

    /// Reads the BHS; its opcode is the caller's to know.
    ///
    /// # Errors
    /// An AHS, a reserved task tag or stage, a transition that is none, T together with C.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        let progress = Progress::parse(bhs)?;
        Ok(Self {
            current_stage: progress.current,
            next_stage: progress.next,
            continues: progress.continues,
            version_max: VERSION_MAX.read(bhs),
            version_min: VERSION_MIN.read(bhs),
            data_segment_length: data_segment_length(bhs),
            isid: Isid(ISID.read(bhs)),
            tsih: Tsih(TSIH.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            cid: Cid(CID.read(bhs)),
            cmd_sn: CmdSn(CMD_SN.read(bhs)),
            expected_stat_sn: StatSn(EXP_STAT_SN.read(bhs)),
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        let progress =
            Progress { current: self.current_stage, next: self.next_stage, continues: self.continues };
        begin(bhs, Self::OPCODE, true, progress.flags(), self.data_segment_length);
        VERSION_MAX.write(bhs, self.version_max);
        VERSION_MIN.write(bhs, self.version_min);
        ISID.write(bhs, self.isid.0);
        TSIH.write(bhs, self.tsih.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        CID.write(bhs, self.cid.0);
        CMD_SN.write(bhs, self.cmd_sn.0);
        EXP_STAT_SN.write(bhs, self.expected_stat_sn.0);
    }
}

/// Status-Class and Status-Detail (§11.13.5). Class 0 succeeds, 1 redirects, 2 blames the initiator, 3 the
/// target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginStatus {
    /// Status-Class.
    pub class: u8,
    /// Status-Detail.
    pub detail: u8,
}

impl LoginStatus {
    /// The login goes on, or has succeeded.
    pub const SUCCESS: Self = Self::new(0x00, 0x00);
    /// The target is elsewhere for now; TargetAddress says where.
    pub const TARGET_MOVED_TEMPORARILY: Self = Self::new(0x01, 0x01);
    /// The target is elsewhere for good; TargetAddress says where.
    pub const TARGET_MOVED_PERMANENTLY: Self = Self::new(0x01, 0x02);
    /// Miscellaneous iSCSI initiator errors.
    pub const INITIATOR_ERROR: Self = Self::new(0x02, 0x00);
    /// Authentication failed.
    pub const AUTHENTICATION_FAILURE: Self = Self::new(0x02, 0x01);
    /// This initiator may not use this target.
    pub const AUTHORIZATION_FAILURE: Self = Self::new(0x02, 0x02);
    /// No such target at this address.
    pub const NOT_FOUND: Self = Self::new(0x02, 0x03);
    /// The target is gone and has left no address.
    pub const TARGET_REMOVED: Self = Self::new(0x02, 0x04);
    /// The range of versions asked for is not supported.
    pub const UNSUPPORTED_VERSION: Self = Self::new(0x02, 0x05);
    /// Too many connections on this session identifier.
    pub const TOO_MANY_CONNECTIONS: Self = Self::new(0x02, 0x06);
    /// A key that is required (InitiatorName, TargetName, …) is missing.
    pub const MISSING_PARAMETER: Self = Self::new(0x02, 0x07);
    /// The target does not support a session that spans to this connection.
    pub const CANNOT_INCLUDE_IN_SESSION: Self = Self::new(0x02, 0x08);
    /// The session type is not supported.
    pub const SESSION_TYPE_NOT_SUPPORTED: Self = Self::new(0x02, 0x09);
    /// A connection was to be added to a session that does not exist.
    pub const SESSION_DOES_NOT_EXIST: Self = Self::new(0x02, 0x0a);
    /// An invalid request type during login.
    pub const INVALID_DURING_LOGIN: Self = Self::new(0x02, 0x0b);
    /// Target hardware or software error.
    pub const TARGET_ERROR: Self = Self::new(0x03, 0x00);
    /// The service or target is not currently operational.
    pub const SERVICE_UNAVAILABLE: Self = Self::new(0x03, 0x01);
    /// Not enough session, connection, or other resources.
    pub const OUT_OF_RESOURCES: Self = Self::new(0x03, 0x02);

    /// A status of this class and detail.
    #[must_use]
    pub const fn new(class: u8, detail: u8) -> Self {
        Self { class, detail }
    }

    /// Whether the class is 0.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.class == 0
    }
}

/// Login Response (§11.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginResponse {
    /// CSG.
    pub current_stage: Stage,
    /// NSG where T is set: the target agrees to go there.
    pub next_stage: Option<Stage>,
    /// C: the text goes on in the next response.
    pub continues: bool,
    /// The highest version that the target speaks.
    pub version_max: u8,
    /// The version in use: the lower of both highest ones.
    pub version_active: u8,
    /// Bytes of text.
    pub data_segment_length: u32,
    /// That of the request.
    pub isid: Isid,
    /// The new session's handle in the final response of a leading login; else that of the request.
    pub tsih: Tsih,
    /// That of the request.
    pub initiator_task_tag: InitiatorTaskTag,
    /// StatSN; valid where the class is 0.
    pub stat_sn: StatSn,
    /// ExpCmdSN; valid where the class is 0.
    pub expected_cmd_sn: CmdSn,
    /// MaxCmdSN; valid where the class is 0.
    pub maximum_cmd_sn: CmdSn,
    /// Status-Class and Status-Detail.
    pub status: LoginStatus,
}

impl LoginResponse {
    /// The opcode (§11.2.1.2).
    pub const OPCODE: u8 = 0x23;

    /// Reads the BHS; its opcode is the caller's to know. Of a failed login the stage bits are reserved
    /// (§11.13.5: only the status counts); they are parsed as security negotiation, without a next one.
    ///
    /// # Errors
    /// An AHS, a reserved task tag or stage, a transition that is none, T together with C.
    pub fn parse(bhs: &Bhs) -> Result<Self, Violation> {
        refuse_ahs(bhs)?;
        let status = LoginStatus::new(STATUS_CLASS.read(bhs), STATUS_DETAIL.read(bhs));
        let progress = if status.is_success() {
            Progress::parse(bhs)?
        } else {
            Progress { current: Stage::SecurityNegotiation, next: None, continues: false }
        };
        Ok(Self {
            current_stage: progress.current,
            next_stage: progress.next,
            continues: progress.continues,
            version_max: VERSION_MAX.read(bhs),
            version_active: VERSION_ACTIVE.read(bhs),
            data_segment_length: data_segment_length(bhs),
            isid: Isid(ISID.read(bhs)),
            tsih: Tsih(TSIH.read(bhs)),
            initiator_task_tag: task_tag(bhs)?,
            stat_sn: StatSn(STAT_SN.read(bhs)),
            expected_cmd_sn: CmdSn(EXP_CMD_SN.read(bhs)),
            maximum_cmd_sn: CmdSn(MAX_CMD_SN.read(bhs)),
            status,
        })
    }

    /// Writes all 48 bytes.
    pub fn emit(&self, bhs: &mut Bhs) {
        let progress =
            Progress { current: self.current_stage, next: self.next_stage, continues: self.continues };
        begin(bhs, Self::OPCODE, false, progress.flags(), self.data_segment_length);
        VERSION_MAX.write(bhs, self.version_max);
        VERSION_ACTIVE.write(bhs, self.version_active);
        ISID.write(bhs, self.isid.0);
        TSIH.write(bhs, self.tsih.0);
        INITIATOR_TASK_TAG.write(bhs, self.initiator_task_tag.0);
        STAT_SN.write(bhs, self.stat_sn.0);
        EXP_CMD_SN.write(bhs, self.expected_cmd_sn.0);
        MAX_CMD_SN.write(bhs, self.maximum_cmd_sn.0);
        STATUS_CLASS.write(bhs, self.status.class);
        STATUS_DETAIL.write(bhs, self.status.detail);
    }
}
