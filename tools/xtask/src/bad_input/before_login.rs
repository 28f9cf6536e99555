//! Before there is a session: what is not a login is not answered, what is a wrong one is refused with its status
//! (RFC 7143 §6.3, §7.12, §11.13.5).

use portico_iscsi::initiator::Offer;
use portico_iscsi::wire::{Isid, Stage, Tsih};

use super::peer::{
    LOGIN_RESPONSE, Peer, command, header, login_header, login_keys, login_request, nop, pdu, plan,
};
use super::{Case, Scene};
use crate::lab::Result;
use crate::lab::gateway::IQN;

pub(super) const CASES: &[Case] = &[
    Case { name: "a command before any login drops the connection", run: command_first },
    Case { name: "a ping before any login drops the connection", run: ping_first },
    Case { name: "an unknown opcode before any login drops the connection", run: opcode_first },
    Case { name: "a header that is cut short, then the end", run: header_cut },
    Case { name: "a login whose text is cut short, then the end", run: text_cut },
    Case { name: "a login request of more data than 8 KiB drops the connection", run: data_too_long },
    Case { name: "a login request that announces 16 MiB drops the connection", run: data_largest },
    Case { name: "a login request with an AHS drops the connection", run: with_ahs },
    Case { name: "a reserved stage is refused", run: |scene| refused(scene, &|bhs| bhs[1] = 0x8b, 2, 0) },
    Case { name: "both T and C are refused", run: |scene| refused(scene, &|bhs| bhs[1] |= 0x40, 2, 0) },
    Case {
        name: "a transition backward is refused",
        run: |scene| refused(scene, &|bhs| bhs[1] = 0x84, 2, 0),
    },
    Case { name: "a version of the future is refused", run: |scene| refused(scene, &|bhs| bhs[3] = 1, 2, 5) },
    Case { name: "a session that there is not cannot be joined", run: unknown_session },
    Case { name: "a login without InitiatorName is refused", run: without_name },
    Case { name: "a target that there is not is not found", run: unknown_target },
    Case { name: "a session type that there is not is refused", run: unknown_type },
    Case {
        name: "a name that is none is refused",
        run: |scene| refused_text(scene, &name_of("not a name"), 2, 0),
    },
    Case {
        name: "a key without its value is refused",
        run: |scene| refused_text(scene, "InitiatorName", 2, 0),
    },
    Case { name: "a key of 64 letters is refused", run: |scene| refused_text(scene, &long_key(64), 2, 0) },
    Case { name: "a value of 8,000 letters is refused", run: long_value },
    Case { name: "a key of 1 MiB in pieces is refused long before its end", run: endless_key },
    Case { name: "a login that never says more than nothing is refused", run: endless_login },
    Case { name: "a login that changes its ISID on the way is refused", run: changed_isid },
    Case { name: "a ping in the midst of a login is refused", run: ping_amid },
    Case {
        name: "numbers beyond their range are answered with Reject, and the login goes on",
        run: wild_numbers,
    },
    Case { name: "a login that arrives byte by byte is taken", run: byte_by_byte },
    Case { name: "a login that is half closed is answered all the same", run: half_closed },
];

fn command_first(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    peer.send(&header(command(&peer, 1)))?;
    peer.expect_closed()
}

fn ping_first(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    peer.send(&pdu(nop(&peer), b"hello"))?;
    peer.expect_closed()
}

fn opcode_first(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let mut bhs = login_header(login_request());
    bhs[0] = 0x5f;
    peer.send(&bhs)?;
    // §6.3 leaves a target free to answer; ours treats it as a login that failed, or drops it.
    peer.drain()
}

fn header_cut(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    peer.send(&login_header(login_request())[..47])?;
    peer.half_close();
    peer.expect_closed()
}

fn text_cut(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let whole = pdu(login_header(login_request()), login_keys().as_bytes());
    peer.send(&whole[..whole.len() - 9])?;
    peer.half_close();
    peer.expect_closed()
}

fn data_too_long(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    peer.send(&pdu(login_header(login_request()), &[0; 8196]))?;
    peer.expect_closed()
}

fn data_largest(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let mut bhs = login_header(login_request());
    bhs[5..8].fill(0xff);
    peer.send(&bhs)?;
    peer.expect_closed()
}

fn with_ahs(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let mut bhs = login_header(login_request());
    bhs[4] = 2;
    peer.send(&[&bhs[..], &[0; 8], login_keys().as_bytes()].concat())?;
    peer.expect_closed()
}

/// A login that is right but for `spoil` ends with this status.
fn refused(scene: &Scene, spoil: &dyn Fn(&mut [u8; 48]), class: u8, detail: u8) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let mut bhs = login_header(login_request());
    spoil(&mut bhs);
    peer.send(&pdu(bhs, login_keys().as_bytes()))?;
    peer.expect_refusal(class, detail)
}

fn unknown_session(scene: &Scene) -> Result<()> {
    refused(
        scene,
        &|bhs| {
            *bhs = login_header(portico_iscsi::wire::LoginRequest { tsih: Tsih(0x7777), ..login_request() })
        },
        2,
        0x0a,
    )
}

/// A login with this text ends with this status.
fn refused_text(scene: &Scene, text: &str, class: u8, detail: u8) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    peer.send(&pdu(login_header(login_request()), text.as_bytes()))?;
    peer.expect_refusal(class, detail)
}

fn without_name(scene: &Scene) -> Result<()> {
    refused_text(scene, &format!("SessionType=Normal\0TargetName={IQN}\0"), 2, 7)
}

fn unknown_target(scene: &Scene) -> Result<()> {
    refused_text(scene, &login_keys().replace(IQN, "iqn.2026-11.test:nowhere"), 2, 3)
}

fn unknown_type(scene: &Scene) -> Result<()> {
    refused_text(scene, &login_keys().replace("=Normal", "=Unheard"), 2, 9)
}

fn name_of(name: &str) -> String {
    login_keys().replace("iqn.2026-11.test:rude", name)
}

fn long_key(letters: usize) -> String {
    format!("{}{}=1\0", login_keys(), "X".repeat(letters))
}

fn long_value(scene: &Scene) -> Result<()> {
    refused_text(scene, &format!("{}InitiatorAlias={}\0", login_keys(), "v".repeat(8000)), 2, 0)
}

/// The C bit asks for more each time. A target that has refused the login does not read the rest.
fn endless_key(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let mut bhs = login_header(login_request());
    bhs[1] = 0x44;
    for _ in 0..128 {
        peer.send(&pdu(bhs, &[b'k'; 8192]))?;
        match peer.hear()? {
            super::peer::Heard::Closed => return Ok(()),
            super::peer::Heard::Pdu(bhs, _) if bhs[36..38] == [2, 0] => return peer.expect_closed(),
            super::peer::Heard::Pdu(bhs, data) => {
                let goes_on = bhs[0] == LOGIN_RESPONSE && bhs[36..38] == [0, 0] && data.is_empty();
                if !goes_on {
                    return Err(crate::lab::Failure::new(format!("to half a text it says {bhs:02x?}")));
                }
            }
        }
    }
    Err(crate::lab::Failure::new("it took the whole of 1 MiB"))
}

fn endless_login(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let mut bhs = login_header(login_request());
    bhs[1] = 0x04;
    peer.send(&pdu(bhs, login_keys().as_bytes()))?;
    for _ in 0..100 {
        match peer.hear()? {
            super::peer::Heard::Pdu(bhs, _) if bhs[36..38] == [0, 0] => {}
            super::peer::Heard::Pdu(bhs, _) if bhs[36..38] == [2, 0] => return peer.expect_closed(),
            other => return Err(crate::lab::Failure::new(format!("not a refusal: {other:?}"))),
        }
        peer.send(&bhs)?;
    }
    Err(crate::lab::Failure::new("100 empty requests were answered"))
}

fn changed_isid(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let request = portico_iscsi::wire::LoginRequest { next_stage: None, ..login_request() };
    peer.send(&pdu(login_header(request), login_keys().as_bytes()))?;
    peer.expect(LOGIN_RESPONSE)?;
    let other = Isid([0x80, 0, 0, 0, 8, 8]);
    peer.send(&login_header(portico_iscsi::wire::LoginRequest { isid: other, ..login_request() }))?;
    peer.expect_refusal(2, 0)
}

fn ping_amid(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let request = portico_iscsi::wire::LoginRequest {
        current_stage: Stage::SecurityNegotiation,
        next_stage: None,
        ..login_request()
    };
    peer.send(&pdu(login_header(request), login_keys().as_bytes()))?;
    peer.expect(LOGIN_RESPONSE)?;
    peer.send(&nop(&peer))?;
    peer.expect_refusal(2, 0x0b)
}

/// §6.2: a value outside of its range is answered "Reject"; what that means for the login is the initiator's to decide.
fn wild_numbers(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    let text = format!("{}MaxBurstLength=99999999999999999999\0MaxOutstandingR2T=0\0", login_keys());
    let request = portico_iscsi::wire::LoginRequest { next_stage: None, ..login_request() };
    peer.send(&pdu(login_header(request), text.as_bytes()))?;
    let (bhs, answer) = peer.expect(LOGIN_RESPONSE)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let rejected =
        ["MaxBurstLength=Reject\0", "MaxOutstandingR2T=Reject\0"].iter().all(|key| answer.contains(key));
    if bhs[36..38] == [0, 0] && rejected {
        return Ok(());
    }
    Err(crate::lab::Failure::new(format!("status {:02x?}, {answer:?}", &bhs[36..38])))
}

fn byte_by_byte(scene: &Scene) -> Result<()> {
    let mut peer = Peer::connect(scene.portal)?;
    for byte in pdu(login_header(login_request()), login_keys().as_bytes()) {
        peer.send(&[byte])?;
    }
    let (bhs, _) = peer.expect(LOGIN_RESPONSE)?;
    if bhs[1] & 0x80 != 0 && bhs[36..38] == [0, 0] {
        return Ok(());
    }
    Err(crate::lab::Failure::new(format!("flags {:#04x}, status {:02x?}", bhs[1], &bhs[36..38])))
}

fn half_closed(scene: &Scene) -> Result<()> {
    let plan = portico_iscsi::initiator::LoginPlan { offer: Offer::none(), ..plan(90) };
    let mut login = portico_iscsi::initiator::Login::new(plan);
    let mut bytes = Vec::new();
    login.next_pdu(&mut bytes);
    let mut peer = Peer::connect(scene.portal)?;
    peer.send(&bytes)?;
    peer.half_close();
    // A target may take the end for the end. What it may not do is hang.
    peer.drain()
}
