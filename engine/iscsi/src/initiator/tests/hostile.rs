//! A target that says anything: the session names a fault or goes on, and never panics.

use super::*;
use crate::wire::{LogoutReason, TaskManagementFunction, data_segment_length};
use proptest::prelude::*;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    Submit {
        write: bool,
        length: u32,
    },
    Control(u8),
    Transmit(u8),
    /// 48 bytes, made plausible to this degree.
    Receive {
        opcode: u8,
        rows: [u32; 12],
        which_tag: usize,
        plausible: Vec<bool>,
    },
}

const TARGET_OPCODES: [u8; 10] = [0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x31, 0x32, 0x3f];

fn any_step() -> impl Strategy<Value = Step> {
    let mostly = proptest::collection::vec(proptest::bool::weighted(0.9), 7);
    let receive =
        (proptest::sample::select(&TARGET_OPCODES[..]), any::<[u32; 12]>(), any::<usize>(), mostly).prop_map(
            |(opcode, rows, which_tag, plausible)| Step::Receive { opcode, rows, which_tag, plausible },
        );
    prop_oneof![
        2 => (any::<bool>(), 0_u32..40_000).prop_map(|(write, length)| Step::Submit { write, length }),
        1 => any::<u8>().prop_map(Step::Control),
        3 => any::<u8>().prop_map(Step::Transmit),
        6 => receive,
    ]
}

fn play(dialogue: &mut Dialogue, tags: &mut Vec<Tag>, step: Step) {
    match step {
        Step::Submit { write, length } => {
            let direction = if write { Direction::Write } else { Direction::Read };
            tags.extend(dialogue.try_submit(&READ_CDB, direction, length, 1));
        }
        Step::Control(which) => tags.extend(match which % 5 {
            0 => dialogue.session.ping(u32::from(which)),
            1 => dialogue.session.exchange_text(&[("SendTargets", "All")]),
            2 => dialogue.session.manage_task(TaskManagementFunction::AbortTask, LUN, tags.first().copied()),
            3 if which > 200 => dialogue.session.log_out(LogoutReason::CloseSession),
            _ => {
                tags.first().and_then(|&tag| dialogue.session.abandon(tag));
                None
            }
        }),
        Step::Transmit(count) => {
            for _ in 0..count % 8 {
                dialogue.sends();
            }
        }
        Step::Receive { opcode, mut rows, which_tag, plausible } => {
            let outstanding: Vec<_> = dialogue.session.outstanding().map(|(tag, _)| tag).collect();
            let candidates = if plausible[6] && !outstanding.is_empty() { &outstanding } else { &*tags };
            if !candidates.is_empty() && plausible[0] {
                rows[4] = candidates[which_tag % candidates.len()].initiator_task_tag().0;
            }
            let empty = matches!(opcode, 0x22 | 0x26 | 0x31);
            rows[1] = if empty && plausible[1] { 0 } else { rows[1] & 0xfff };
            if plausible[2] {
                rows[6] = dialogue.session.expected_stat_sn().0;
                rows[7] = dialogue.session.window().expected().0;
                rows[8] = dialogue.session.next_cmd_sn().0.wrapping_add(8);
            }
            if plausible[3] {
                rows[5] = u32::MAX;
            }
            if plausible[4] {
                (rows[9], rows[10], rows[11]) = (rows[9] & 1, rows[10] & 0x1000, rows[11] & 0x1fff);
            }
            let mut bhs = [0; BHS_BYTES];
            for (row, bytes) in rows.iter().zip(bhs.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&row.to_be_bytes());
            }
            bhs[0] = opcode;
            if plausible[5] {
                // Neither o nor u nor A, one of O and U at most; Command Completed; GOOD.
                bhs[1] &= if bhs[1] & 0x02 == 0 { 0x85 } else { 0x83 };
                bhs[2..4].fill(0);
            }
            let staged = vec![bhs[11]; data_segment_length(&bhs) as usize];
            match dialogue.session.receive_header(&bhs) {
                Ok(Placement::Staging { .. }) => drop(dialogue.session.receive_done(&staged)),
                Ok(_) => drop(dialogue.session.receive_done(&[])),
                Err(_) => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_a_target_says_the_session_does_not_panic(
        in_order: bool,
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        let mut dialogue = Dialogue::begin(|parameters| {
            parameters.data_sequence_in_order = in_order;
            parameters.data_pdu_in_order = in_order;
        });
        let mut tags = Vec::new();
        for step in steps {
            play(&mut dialogue, &mut tags, step);
            prop_assert!(dialogue.session.outstanding_count() <= 8);
        }
    }
}
