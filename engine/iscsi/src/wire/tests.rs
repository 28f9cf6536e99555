//! Golden bytes of every PDU, and what must hold for any 48 bytes.

use super::*;
use crate::sn::{CmdSn, DataSn, R2tSn, StatSn};
use proptest::prelude::*;

const ITT: InitiatorTaskTag = InitiatorTaskTag(0x1011_1213);
const TTT: TargetTransferTag = TargetTransferTag(0x2021_2223);
const LUN: LunField = LunField([0x00, 0x05, 0, 0, 0, 0, 0, 0]);

/// Twelve rows of four bytes, as the standard draws them.
type Rows = [u32; 12];

fn bytes(rows: Rows) -> Bhs {
    let mut bhs = [0; BHS_BYTES];
    for (row, bytes) in rows.iter().zip(bhs.chunks_exact_mut(4)) {
        bytes.copy_from_slice(&row.to_be_bytes());
    }
    bhs
}

fn initiator_sends(pdu: InitiatorPdu, rows: Rows) {
    let mut bhs = [0xee; BHS_BYTES];
    pdu.emit(&mut bhs);
    assert_eq!(bhs, bytes(rows), "{pdu:?}");
    assert_eq!(InitiatorPdu::parse(&bhs), Ok(pdu));
}

fn target_sends(pdu: TargetPdu, rows: Rows) {
    let mut bhs = [0xee; BHS_BYTES];
    pdu.emit(&mut bhs);
    assert_eq!(bhs, bytes(rows), "{pdu:?}");
    assert_eq!(TargetPdu::parse(&bhs), Ok(pdu));
}

#[test]
fn nop_out_and_nop_in_as_the_standard_draws_them() {
    let out = NopOut {
        immediate: true,
        data_segment_length: 5,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        target_transfer_tag: TTT,
        cmd_sn: CmdSn(0x3031_3233),
        expected_stat_sn: StatSn(0x4041_4243),
    };
    initiator_sends(
        InitiatorPdu::NopOut(out),
        [0x4080_0000, 5, 0x0005_0000, 0, u32::MAX, 0x2021_2223, 0x3031_3233, 0x4041_4243, 0, 0, 0, 0],
    );
    let answer = NopIn {
        data_segment_length: 5,
        lun: LUN,
        initiator_task_tag: ITT,
        target_transfer_tag: TargetTransferTag::RESERVED,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
    };
    target_sends(
        TargetPdu::NopIn(answer),
        [
            0x2080_0000,
            5,
            0x0005_0000,
            0,
            0x1011_1213,
            u32::MAX,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            0,
            0,
            0,
        ],
    );
}

#[test]
fn a_scsi_write_with_immediate_data_and_an_ahs_as_the_standard_draws_it() {
    let command = ScsiCommand {
        immediate: false,
        is_final: false,
        read: false,
        write: true,
        attribute: TaskAttribute::Ordered,
        priority: 0xa,
        total_ahs_words: 5,
        data_segment_length: 0x2000,
        lun: LUN,
        initiator_task_tag: ITT,
        expected_data_transfer_length: 0x0001_0000,
        cmd_sn: CmdSn(0x3031_3233),
        expected_stat_sn: StatSn(0x4041_4243),
        cdb: [0x7f, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
    };
    initiator_sends(
        InitiatorPdu::ScsiCommand(command),
        [
            0x0122_a000,
            0x0500_2000,
            0x0005_0000,
            0,
            0x1011_1213,
            0x0001_0000,
            0x3031_3233,
            0x4041_4243,
            0x7f01_0203,
            0x0405_0607,
            0x0809_0a0b,
            0x0c0d_0e0f,
        ],
    );
}

#[test]
fn a_scsi_response_with_both_residuals_as_the_standard_draws_it() {
    let response = ScsiResponse {
        response: ServiceResponse::CommandCompleted,
        status: 0x02,
        status_qualifier: 0x0708,
        data_segment_length: 20,
        initiator_task_tag: ITT,
        snack_tag: 0x7071_7273,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
        expected_data_sn: 9,
        bidirectional_read_residual: Residual::Overflow(0x100),
        residual: Residual::Underflow(0x200),
    };
    target_sends(
        TargetPdu::ScsiResponse(response),
        [
            0x2192_0002,
            20,
            0x0708_0000,
            0,
            0x1011_1213,
            0x7071_7273,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            9,
            0x100,
            0x200,
        ],
    );
}

#[test]
fn task_management_as_the_standard_draws_it() {
    let request = TaskManagementRequest {
        immediate: true,
        function: TaskManagementFunction::AbortTask,
        lun: LUN,
        initiator_task_tag: ITT,
        referenced_task_tag: InitiatorTaskTag(0x7071_7273),
        cmd_sn: CmdSn(0x3031_3233),
        expected_stat_sn: StatSn(0x4041_4243),
        referenced_cmd_sn: CmdSn(0x5051_5253),
        expected_data_sn: DataSn(0x6061_6263),
    };
    initiator_sends(
        InitiatorPdu::TaskManagement(request),
        [
            0x4281_0000,
            0,
            0x0005_0000,
            0,
            0x1011_1213,
            0x7071_7273,
            0x3031_3233,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            0,
            0,
        ],
    );
    let response = TaskManagementResponse {
        result: TaskManagementResult::Rejected,
        additional_information: [1, 2, 3],
        initiator_task_tag: ITT,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
    };
    target_sends(
        TargetPdu::TaskManagement(response),
        [0x2280_ff00, 0, 0x0102_0300, 0, 0x1011_1213, 0, 0x4041_4243, 0x5051_5253, 0x6061_6263, 0, 0, 0],
    );
}

#[test]
fn a_login_request_as_the_standard_draws_it() {
    let request = LoginRequest {
        current_stage: Stage::LoginOperationalNegotiation,
        next_stage: Some(Stage::FullFeaturePhase),
        continues: false,
        version_max: 0,
        version_min: 0,
        data_segment_length: 300,
        isid: Isid([0x80, 0x12, 0x34, 0x56, 0x00, 0x01]),
        tsih: Tsih(0x0a0b),
        initiator_task_tag: ITT,
        cid: Cid(0x0c0d),
        cmd_sn: CmdSn(0x3031_3233),
        expected_stat_sn: StatSn(0x4041_4243),
    };
    initiator_sends(
        InitiatorPdu::Login(request),
        [
            0x4387_0000,
            300,
            0x8012_3456,
            0x0001_0a0b,
            0x1011_1213,
            0x0c0d_0000,
            0x3031_3233,
            0x4041_4243,
            0,
            0,
            0,
            0,
        ],
    );
}

#[test]
fn a_login_response_and_a_refusal_as_the_standard_draws_them() {
    let response = LoginResponse {
        current_stage: Stage::SecurityNegotiation,
        next_stage: None,
        continues: true,
        version_max: 0,
        version_active: 0,
        data_segment_length: 8192,
        isid: Isid([0x80, 0x12, 0x34, 0x56, 0x00, 0x01]),
        tsih: Tsih(0x0a0b),
        initiator_task_tag: ITT,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
        status: LoginStatus::SUCCESS,
    };
    target_sends(
        TargetPdu::Login(response),
        [
            0x2340_0000,
            8192,
            0x8012_3456,
            0x0001_0a0b,
            0x1011_1213,
            0,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            0,
            0,
            0,
        ],
    );
    let refused = LoginResponse { continues: false, status: LoginStatus::AUTHORIZATION_FAILURE, ..response };
    target_sends(
        TargetPdu::Login(refused),
        [
            0x2300_0000,
            8192,
            0x8012_3456,
            0x0001_0a0b,
            0x1011_1213,
            0,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            0x0202_0000,
            0,
            0,
        ],
    );
}

#[test]
fn text_as_the_standard_draws_it() {
    let request = TextRequest {
        immediate: false,
        is_final: true,
        continues: false,
        data_segment_length: 16,
        lun: LunField::default(),
        initiator_task_tag: ITT,
        target_transfer_tag: TargetTransferTag::RESERVED,
        cmd_sn: CmdSn(0x3031_3233),
        expected_stat_sn: StatSn(0x4041_4243),
    };
    initiator_sends(
        InitiatorPdu::Text(request),
        [0x0480_0000, 16, 0, 0, 0x1011_1213, u32::MAX, 0x3031_3233, 0x4041_4243, 0, 0, 0, 0],
    );
    let response = TextResponse {
        is_final: false,
        continues: true,
        data_segment_length: 8192,
        lun: LUN,
        initiator_task_tag: ITT,
        target_transfer_tag: TTT,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
    };
    target_sends(
        TargetPdu::Text(response),
        [
            0x2440_0000,
            8192,
            0x0005_0000,
            0,
            0x1011_1213,
            0x2021_2223,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            0,
            0,
            0,
        ],
    );
}

#[test]
fn data_out_and_data_in_as_the_standard_draws_them() {
    let out = DataOut {
        is_final: true,
        data_segment_length: 0x2000,
        lun: LUN,
        initiator_task_tag: ITT,
        target_transfer_tag: TTT,
        expected_stat_sn: StatSn(0x4041_4243),
        data_sn: DataSn(7),
        buffer_offset: 0x0001_0000,
    };
    initiator_sends(
        InitiatorPdu::DataOut(out),
        [0x0580_0000, 0x2000, 0x0005_0000, 0, 0x1011_1213, 0x2021_2223, 0, 0x4041_4243, 0, 7, 0x0001_0000, 0],
    );
    let last = DataIn {
        is_final: true,
        acknowledge: false,
        data_segment_length: 0x1000,
        lun: LunField::default(),
        initiator_task_tag: ITT,
        target_transfer_tag: TargetTransferTag::RESERVED,
        status: Some(DataInStatus {
            status: 0x04,
            stat_sn: StatSn(0x4041_4243),
            residual: Residual::Underflow(0x200),
        }),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
        data_sn: DataSn(7),
        buffer_offset: 0x0001_0000,
    };
    target_sends(
        TargetPdu::DataIn(last),
        [
            0x2583_0004,
            0x1000,
            0,
            0,
            0x1011_1213,
            u32::MAX,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            7,
            0x0001_0000,
            0x200,
        ],
    );
    let wants_ack = DataIn { acknowledge: true, lun: LUN, target_transfer_tag: TTT, status: None, ..last };
    target_sends(
        TargetPdu::DataIn(wants_ack),
        [
            0x25c0_0000,
            0x1000,
            0x0005_0000,
            0,
            0x1011_1213,
            0x2021_2223,
            0,
            0x5051_5253,
            0x6061_6263,
            7,
            0x0001_0000,
            0,
        ],
    );
}

#[test]
fn r2t_as_the_standard_draws_it() {
    let r2t = R2t {
        lun: LUN,
        initiator_task_tag: ITT,
        target_transfer_tag: TTT,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
        r2t_sn: R2tSn(2),
        buffer_offset: 0x0001_0000,
        desired_data_transfer_length: 0x0004_0000,
    };
    target_sends(
        TargetPdu::R2t(r2t),
        [
            0x3180_0000,
            0,
            0x0005_0000,
            0,
            0x1011_1213,
            0x2021_2223,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            2,
            0x0001_0000,
            0x0004_0000,
        ],
    );
}

#[test]
fn logout_as_the_standard_draws_it() {
    let request = LogoutRequest {
        immediate: true,
        reason: LogoutReason::RemoveConnectionForRecovery,
        initiator_task_tag: ITT,
        cid: Cid(0x0c0d),
        cmd_sn: CmdSn(0x3031_3233),
        expected_stat_sn: StatSn(0x4041_4243),
    };
    initiator_sends(
        InitiatorPdu::Logout(request),
        [0x4682_0000, 0, 0, 0, 0x1011_1213, 0x0c0d_0000, 0x3031_3233, 0x4041_4243, 0, 0, 0, 0],
    );
    let response = LogoutResponse {
        result: LogoutResult::RecoveryNotSupported,
        initiator_task_tag: ITT,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
        time_2_wait_s: 2,
        time_2_retain_s: 20,
    };
    target_sends(
        TargetPdu::Logout(response),
        [0x2680_0200, 0, 0, 0, 0x1011_1213, 0, 0x4041_4243, 0x5051_5253, 0x6061_6263, 0, 0x0002_0014, 0],
    );
}

#[test]
fn snack_as_the_standard_draws_it() {
    let snack = Snack {
        kind: SnackType::DataAck,
        lun: LUN,
        initiator_task_tag: InitiatorTaskTag::RESERVED,
        transfer_or_snack_tag: 0x2021_2223,
        expected_stat_sn: StatSn(0x4041_4243),
        run_begin: 12,
        run_length: 3,
    };
    initiator_sends(
        InitiatorPdu::Snack(snack),
        [0x1082_0000, 0, 0x0005_0000, 0, u32::MAX, 0x2021_2223, 0, 0x4041_4243, 0, 0, 12, 3],
    );
}

#[test]
fn reject_and_async_message_as_the_standard_draws_them() {
    let reject = Reject {
        reason: RejectReason::WaitingForLogout,
        data_segment_length: 48,
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
        data_sn_or_r2t_sn: 7,
    };
    target_sends(
        TargetPdu::Reject(reject),
        [0x3f80_0c00, 48, 0, 0, u32::MAX, 0, 0x4041_4243, 0x5051_5253, 0x6061_6263, 7, 0, 0],
    );
    let message = AsyncMessage {
        event: AsyncEvent::ConnectionDropped,
        vendor_code: 9,
        parameter_1: 1,
        parameter_2: 2,
        parameter_3: 20,
        data_segment_length: 0,
        lun: LunField::default(),
        stat_sn: StatSn(0x4041_4243),
        expected_cmd_sn: CmdSn(0x5051_5253),
        maximum_cmd_sn: CmdSn(0x6061_6263),
    };
    target_sends(
        TargetPdu::Async(message),
        [
            0x3280_0000,
            0,
            0,
            0,
            u32::MAX,
            0,
            0x4041_4243,
            0x5051_5253,
            0x6061_6263,
            0x0209_0001,
            0x0002_0014,
            0,
        ],
    );
}

/// What is wrong with the 48 bytes of an initiator's PDU, given byte 0 to 3, DataSegmentLength, and the row
/// at 20.
fn refused(first: u32, lengths: u32, row_20: u32) -> Violation {
    InitiatorPdu::parse(&bytes([first, lengths, 0, 0, 1, row_20, 0, 0, 0, 0, 0, 0])).unwrap_err()
}

#[test]
fn a_command_whose_fields_disagree_is_refused() {
    assert_eq!(refused(0x0100_0000, 0, 0), Violation::UnsolicitedDataWithoutWrite);
    assert_eq!(refused(0x0180_0000, 0, 512), Violation::LengthWithoutDirection { length: 512 });
    assert_eq!(refused(0x01c0_0000, 512, 512), Violation::ImmediateDataWithoutWrite);
    let beyond = Violation::ImmediateDataBeyondExpectedLength { length: 513, expected: 512 };
    assert_eq!(refused(0x01a0_0000, 513, 512), beyond);
    assert_eq!(refused(0x0186_0000, 0, 0), Violation::ReservedTaskAttribute { attribute: 6 });
}

#[test]
fn a_login_that_goes_nowhere_or_backward_is_refused() {
    let backward = |current, next| Violation::LoginStageBackward { current, next };
    use Stage::{LoginOperationalNegotiation as Operational, SecurityNegotiation as Security};
    assert_eq!(refused(0x4384_0000, 0, 0), backward(Operational, Security));
    assert_eq!(refused(0x4385_0000, 0, 0), backward(Operational, Operational));
    assert_eq!(refused(0x4386_0000, 0, 0), Violation::ReservedLoginStage { stage: 2 });
    assert_eq!(refused(0x4308_0000, 0, 0), Violation::ReservedLoginStage { stage: 2 });
    assert_eq!(refused(0x430c_0000, 0, 0), Violation::LoginInFullFeatureStage);
    assert_eq!(refused(0x43c1_0000, 0, 0), Violation::TransitWithContinue);
}

#[test]
fn payload_where_there_is_none_is_refused() {
    assert_eq!(refused(0x4281_0000, 4, 0), Violation::DataSegmentNotAllowed { opcode: 0x02 });
    assert_eq!(refused(0x4080_0000, 0x0100_0000, 0), Violation::AhsNotAllowed { opcode: 0x00 });
}

#[test]
fn an_opcode_of_the_other_direction_or_of_nobody_is_unknown() {
    for opcode in [0x07, 0x1c, 0x20, 0x25, 0x3f] {
        let first = u32::from(opcode) << 24 | 0x0080_0000;
        assert_eq!(refused(first, 0, 0), Violation::UnknownOpcode { opcode });
    }
    let from_target = bytes([0x0180_0000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(TargetPdu::parse(&from_target), Err(Violation::UnknownOpcode { opcode: 0x01 }));
}

#[test]
fn nsg_is_ignored_while_the_login_does_not_transit() {
    let bhs = bytes([0x4306_0000, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    let login = LoginRequest::parse(&bhs).unwrap();
    assert_eq!((login.current_stage, login.next_stage), (Stage::LoginOperationalNegotiation, None));
}

/// 48 random bytes that often enough pass: half of them without AHS, half without data.
fn any_bhs(opcodes: &'static [u8]) -> impl Strategy<Value = Bhs> {
    (proptest::sample::select(opcodes), any::<Rows>(), any::<[bool; 3]>()).prop_map(
        |(opcode, rows, [immediate, ahs, data])| {
            let mut bhs = bytes(rows);
            bhs[0] = opcode | if immediate { IMMEDIATE } else { 0 };
            if !ahs {
                bhs[4] = 0;
            }
            if !data {
                bhs[5..8].fill(0);
            }
            bhs
        },
    )
}

const INITIATOR_OPCODES: &[u8] = &[0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10];
const TARGET_OPCODES: &[u8] = &[0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn what_an_initiator_means_survives_being_written_and_read(bhs in any_bhs(INITIATOR_OPCODES)) {
        if let Ok(pdu) = InitiatorPdu::parse(&bhs) {
            let mut again = [0xee; BHS_BYTES];
            pdu.emit(&mut again);
            prop_assert_eq!(InitiatorPdu::parse(&again), Ok(pdu));
        }
    }

    #[test]
    fn what_a_target_means_survives_being_written_and_read(bhs in any_bhs(TARGET_OPCODES)) {
        if let Ok(pdu) = TargetPdu::parse(&bhs) {
            let mut again = [0xee; BHS_BYTES];
            pdu.emit(&mut again);
            prop_assert_eq!(TargetPdu::parse(&again), Ok(pdu));
        }
    }

    #[test]
    fn any_48_bytes_are_read_without_a_panic(rows: Rows) {
        let bhs = bytes(rows);
        let _ = InitiatorPdu::parse(&bhs);
        let _ = TargetPdu::parse(&bhs);
    }
}
