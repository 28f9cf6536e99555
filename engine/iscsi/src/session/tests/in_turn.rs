//! The short way of a command in its turn, beside the long one.

use super::*;
use proptest::prelude::*;

/// A command as [`Session::receive_in_turn`] takes it, or as the three calls for which it stands.
fn receive(dialogue: &mut Dialogue, command: &ScsiCommand, is_short: bool) -> Option<Segment> {
    if is_short
        && let Some((task, segment)) = dialogue.session.receive_in_turn(Seat::LEADING, command, dialogue.now)
    {
        assert_eq!(dialogue.session.command(task), command);
        assert_eq!(dialogue.session.next_request(), None, "it brings no other with it");
        return Some(segment);
    }
    let Ok(Received::Request { task, segment }) = dialogue.send(InitiatorPdu::ScsiCommand(*command)) else {
        return None;
    };
    dialogue.session.data_arrived(Seat::LEADING, task);
    while dialogue.session.next_request().is_some() {}
    Some(segment)
}

#[test]
fn it_is_for_plain_commands_alone() {
    let taken = |command: ScsiCommand| {
        let mut dialogue = Dialogue::new();
        dialogue.session.receive_in_turn(Seat::LEADING, &command, dialogue.now).is_some()
    };
    let plain = command(7, 1);
    let write = ScsiCommand { write: true, expected_data_transfer_length: 16_384, ..plain };
    assert!(taken(plain) && taken(ScsiCommand { read: true, ..plain }));
    assert!(taken(ScsiCommand { data_segment_length: 4096, ..write }));
    for other in [
        command(7, 2),
        command(7, 0),
        ScsiCommand { immediate: true, ..plain },
        ScsiCommand { total_ahs_words: 1, ..plain },
        ScsiCommand { read: true, ..write },
        ScsiCommand { data_segment_length: 8193, ..write },
    ] {
        assert!(!taken(other), "{other:?}");
    }
}

#[test]
fn a_function_on_a_task_set_has_its_turn_first() {
    let mut dialogue = Dialogue::new();
    let function = management(TaskManagementFunction::AbortTaskSet, 9, 2);
    let task = dialogue.request(InitiatorPdu::TaskManagement(function));
    assert_eq!(dialogue.session.next_request(), None, "command 1 was sent before it");
    assert_eq!(dialogue.session.receive_in_turn(Seat::LEADING, &command(7, 1), dialogue.now), None);
    let first = dialogue.request(plain(7, 1));
    assert_eq!([dialogue.session.next_request(), dialogue.session.next_request()], [Some(first), Some(task)]);
}

/// The header of the only PDU of a read, as [`Session::read_in_turn`] has it written, or as a task has.
fn read_whole(
    dialogue: &mut Dialogue,
    read: &ScsiCommand,
    required_bytes: u64,
    is_short: bool,
) -> Option<Bhs> {
    let (mut header, now) = ([0xff; BHS_BYTES], dialogue.now);
    if is_short {
        let turn = dialogue.session.read_in_turn(Seat::LEADING, read)?;
        turn.data_in_bytes(required_bytes)?;
        turn.answer(required_bytes, now, &mut header);
        return Some(header);
    }
    let task = dialogue.deliver(InitiatorPdu::ScsiCommand(*read));
    let length = dialogue.session.begin_data_in(task, required_bytes);
    let segment = dialogue.session.next_data_in(task, length, &mut header).expect("all of it is there");
    assert!(segment.ends_task);
    dialogue.session.retire(task);
    Some(header)
}

#[test]
fn a_read_is_answered_at_once_where_one_pdu_is_all_of_it() {
    let bytes = |read: ScsiCommand, required_bytes| {
        let mut dialogue = Dialogue::new();
        let turn = dialogue.session.read_in_turn(Seat::LEADING, &read)?;
        turn.data_in_bytes(required_bytes)
    };
    let read = ScsiCommand { read: true, expected_data_transfer_length: 4096, ..command(7, 1) };
    assert_eq!((bytes(read, 4096), bytes(read, 8192), bytes(read, 512)), (Some(4096), Some(4096), Some(512)));
    assert_eq!(bytes(read, 0), None, "there is no Data-In PDU without data");
    let long = ScsiCommand { expected_data_transfer_length: 8192, ..read };
    assert_eq!((bytes(long, 8192), bytes(long, 4096)), (None, Some(4096)));
    for other in [
        ScsiCommand { read: false, ..read },
        ScsiCommand { write: true, ..read },
        ScsiCommand { immediate: true, ..read },
        ScsiCommand { total_ahs_words: 1, ..read },
        ScsiCommand { cmd_sn: CmdSn(2), ..read },
    ] {
        assert_eq!(bytes(other, 4096), None, "{other:?}");
    }
}

#[test]
fn a_read_is_no_task_whose_tag_is_in_use() {
    let mut dialogue = Dialogue::new();
    dialogue.deliver(plain(7, 1));
    let read = ScsiCommand { read: true, expected_data_transfer_length: 512, ..command(7, 2) };
    assert!(dialogue.session.read_in_turn(Seat::LEADING, &read).is_none());
}

proptest! {
    /// Reads that are answered as they come, between commands that go on for longer: the initiator cannot tell the two ways apart.
    #[test]
    fn a_read_at_once_leaves_behind_what_a_task_does(
        steps: Vec<(u8, u16, u16)>, first: u32, width in 2_u16..9, held: bool,
    ) {
        let start = || Start { cmd_sn: CmdSn(first), queued_commands: width, ..start() };
        let (mut long, mut short) = (Dialogue::with(start()), Dialogue::with(start()));
        let mut open = Vec::new();
        for (step, expected, required) in steps {
            for dialogue in [&mut long, &mut short] {
                dialogue.session.hold_window(held && step % 2 == 0);
            }
            let cmd_sn = long.session.window().expected();
            let tag = cmd_sn.0 & 0x7fff_ffff;
            if step % 4 == 0 && open.len() + 1 < usize::from(width) && long.session.window().admits(cmd_sn) {
                let [by_long, by_short] = [&mut long, &mut short].map(|dialogue| dialogue.deliver(plain(tag, cmd_sn.0)));
                open.push((by_long, by_short));
            } else if step % 4 == 1 && let Some((by_long, by_short)) = open.pop() {
                let [by_long, by_short] = [(&mut long, by_long), (&mut short, by_short)].map(|(dialogue, task)| {
                    let response = dialogue.respond(task, GOOD);
                    dialogue.session.retire(task);
                    response
                });
                prop_assert_eq!(by_long, by_short);
            } else if long.session.window().admits(cmd_sn) {
                let (expected, required) = (u32::from(expected % 4096) + 1, u64::from(required % 4096) + 1);
                let read = ScsiCommand {
                    read: true,
                    expected_data_transfer_length: expected,
                    ..command(tag, cmd_sn.0)
                };
                let by_short = read_whole(&mut short, &read, required, true);
                prop_assert!(by_short.is_some());
                prop_assert_eq!(by_short, read_whole(&mut long, &read, required, false));
            }
            prop_assert_eq!(long.session.window(), short.session.window());
            prop_assert_eq!(long.session.stat_sn(Seat::LEADING), short.session.stat_sn(Seat::LEADING));
        }
    }

    /// Commands of all kinds and numbers, answered and retired in between: both ways lead to the same.
    #[test]
    fn the_short_way_leads_where_the_long_one_does(
        steps: Vec<(u8, u8, bool)>, first: u32, width in 1_u16..9,
    ) {
        let start = || Start { cmd_sn: CmdSn(first), queued_commands: width, ..start() };
        let (mut long, mut short) = (Dialogue::with(start()), Dialogue::with(start()));
        for (step, choice, flag) in steps {
            let ahead = u32::from(choice % 3);
            let cmd_sn = long.session.window().expected().advanced_by(if step % 4 == 0 { ahead } else { 0 });
            let data_segment_length = u32::from(choice) * 50;
            let command = ScsiCommand {
                read: flag,
                write: !flag,
                data_segment_length: if flag { 0 } else { data_segment_length },
                expected_data_transfer_length: data_segment_length.max(1) * u32::from(step % 3 + 1),
                ..command(cmd_sn.0 & 0x7fff_ffff, cmd_sn.0)
            };
            let (by_long, by_short) = (receive(&mut long, &command, false), receive(&mut short, &command, true));
            prop_assert_eq!(by_long, by_short);
            prop_assert_eq!(long.session.window(), short.session.window());
            let of = |dialogue: &Dialogue| {
                let mut all: Vec<_> = dialogue.session.live_commands().map(|(task, command)| {
                    (command.cmd_sn.0, dialogue.session.progress(task))
                }).collect();
                all.sort_by_key(|(cmd_sn, _)| *cmd_sn);
                all
            };
            prop_assert_eq!(of(&long), of(&short));
            if step % 5 == 0 {
                for dialogue in [&mut long, &mut short] {
                    let delivered = dialogue.session.live_commands()
                        .filter(|(task, _)| dialogue.session.tasks.task(*task).stage == Stage::Delivered)
                        .min_by_key(|(_, command)| command.cmd_sn.0).map(|(task, _)| task);
                    if let Some(task) = delivered {
                        dialogue.respond(task, GOOD);
                        dialogue.session.retire(task);
                    }
                }
            }
        }
    }
}
