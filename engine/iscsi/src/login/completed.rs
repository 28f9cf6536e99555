//! A login whose last request is in and whose last response is not yet out.
//!
//! Everything is owned and plain, so that a [`Completed`] may cross threads to the session's home, where it is accepted
//! or refused. It never decides that itself: TSIH, reinstatement and the number of sessions are the caller's.

use super::directory::QUEUED_COMMANDS_MAX;
use super::{LoginReply, STAGE_OF_A_REFUSAL};
use crate::negotiate::Parameters;
use crate::sn::{CmdSn, CommandWindow, StatSn};
use crate::wire::login::VERSION;
use crate::wire::{Cid, InitiatorTaskTag, Isid, LoginResponse, LoginStatus, Stage, Tsih};

/// What a session is for (§4.3, §13.21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionType {
    /// SCSI commands to one target.
    Normal,
    /// SendTargets and logout only.
    Discovery,
}

/// All that the last Login Request settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Normal or discovery.
    pub session_type: SessionType,
    /// InitiatorName (§13.5).
    pub initiator_name: String,
    /// InitiatorAlias (§13.7), where one was declared.
    pub initiator_alias: Option<String>,
    /// TargetName (§13.4); a discovery session may be without one.
    pub target_name: Option<String>,
    /// The tag of the portal group that the connection came through; 0 in a discovery session.
    pub portal_group_tag: u16,
    /// The CHAP user that the initiator has proven to be; `None` where no proof was asked for.
    pub authenticated_as: Option<String>,
    /// The initiator's half of the session's name.
    pub isid: Isid,
    /// 0 asks for a new session, or to reinstate the one of the same name; any other asks to join that session (§6.3.1).
    pub tsih: Tsih,
    /// The connection, named by the initiator.
    pub cid: Cid,
    /// The CmdSN of the first non-immediate command.
    pub cmd_sn: CmdSn,
    /// The StatSN of the final Login Response; the session goes on with the next one.
    pub stat_sn: StatSn,
    /// What was negotiated.
    pub parameters: Parameters,
    /// How many commands the session takes at once, from 1 to [`QUEUED_COMMANDS_MAX`].
    pub queued_commands: u16,
    pub(super) current_stage: Stage,
    pub(super) initiator_task_tag: InitiatorTaskTag,
    pub(super) text: Vec<u8>,
}

impl Completed {
    /// The final Login Response of a session's first connection: the full feature phase begins (§6.3). `tsih` names the
    /// session and is never 0.
    ///
    /// # Panics
    /// When the handle is 0.
    #[must_use]
    pub fn accept(&self, tsih: Tsih) -> LoginReply {
        assert_ne!(tsih, Tsih::NEW, "0 is no session's handle");
        self.accepted(LoginResponse { tsih, ..self.response(LoginStatus::SUCCESS) })
    }

    /// The final Login Response of a connection that joins the session it has named, whose window is this.
    #[must_use]
    pub fn accept_joining(&self, window: CommandWindow) -> LoginReply {
        self.accepted(LoginResponse {
            tsih: self.tsih,
            expected_cmd_sn: window.expected(),
            maximum_cmd_sn: window.maximum(),
            ..self.response(LoginStatus::SUCCESS)
        })
    }

    fn accepted(&self, response: LoginResponse) -> LoginReply {
        let response = LoginResponse {
            next_stage: Some(Stage::FullFeaturePhase),
            data_segment_length: super::length_of(&self.text),
            ..response
        };
        LoginReply { response, text: self.text.clone() }
    }

    /// The final Login Response where there is to be no session; the connection is closed after it (§11.13.5).
    #[must_use]
    pub fn refuse(&self, status: LoginStatus) -> LoginReply {
        assert!(!status.is_success(), "a refusal has a reason");
        let mut response = LoginResponse { current_stage: STAGE_OF_A_REFUSAL, ..self.response(status) };
        if self.tsih != Tsih::NEW {
            // Of the session that it has not joined, this says nothing (§4.2.2.1).
            response.maximum_cmd_sn = self.cmd_sn.previous().previous();
        }
        LoginReply { response, text: Vec::new() }
    }

    fn response(&self, status: LoginStatus) -> LoginResponse {
        assert!((1..=QUEUED_COMMANDS_MAX).contains(&self.queued_commands));
        LoginResponse {
            current_stage: self.current_stage,
            next_stage: None,
            continues: false,
            version_max: VERSION,
            version_active: VERSION,
            data_segment_length: 0,
            isid: self.isid,
            tsih: self.tsih,
            initiator_task_tag: self.initiator_task_tag,
            stat_sn: self.stat_sn,
            expected_cmd_sn: self.cmd_sn,
            maximum_cmd_sn: self.cmd_sn.advanced_by(u32::from(self.queued_commands) - 1),
            status,
        }
    }
}
