//! What differs between two states of a device, and which of it may change while it is open. The schema knows that.

use portico_model::configuration::{Device, Handler};

use crate::scst_conf::schema::{self, Change, Level};

/// Attributes that differ, by when they may change.
#[derive(Default)]
pub(super) struct Differences {
    pub(super) fixed: Vec<&'static str>,
    pub(super) running: Vec<&'static str>,
}

/// Compares two devices of the same name.
pub(super) fn differences(old: &Device, new: &Device) -> Differences {
    let mut found = Differences::default();
    let (was, is) = (&old.identity, &new.identity);
    let compared = [
        ("filename", old.handler.filename() != new.handler.filename()),
        ("option", is_other_client(&old.handler, &new.handler)),
        ("dummy", old.handler.is_dummy() != new.handler.is_dummy()),
        ("size", old.handler.size_bytes() != new.handler.size_bytes()),
        ("blocksize", old.block_size_bytes != new.block_size_bytes),
        ("read_only", old.read_only != new.read_only),
        ("write_through", old.write_through != new.write_through),
        ("nv_cache", old.nv_cache != new.nv_cache),
        ("o_direct", old.o_direct != new.o_direct),
        ("rotational", old.rotational != new.rotational),
        ("thin_provisioned", old.thin_provisioned != new.thin_provisioned),
        ("removable", old.removable != new.removable),
        ("lb_per_pb_exp", old.lb_per_pb_exp != new.lb_per_pb_exp),
        ("opt_trans_len", old.opt_trans_len_bytes != new.opt_trans_len_bytes),
        ("max_tgt_dev_commands", old.max_tgt_dev_commands != new.max_tgt_dev_commands),
        ("expl_alua", old.explicit_alua != new.explicit_alua),
        ("pr_file_name", old.pr_file_name != new.pr_file_name),
        ("t10_dev_id", was.t10_dev_id != is.t10_dev_id),
        ("t10_vend_id", was.t10_vend_id != is.t10_vend_id),
        ("prod_id", was.prod_id != is.prod_id),
        ("prod_rev_lvl", was.prod_rev_lvl != is.prod_rev_lvl),
        ("vend_specific_id", was.vend_specific_id != is.vend_specific_id),
        ("usn", was.usn != is.usn),
        ("naa_id", was.naa_id != is.naa_id),
        ("eui64_id", was.eui64_id != is.eui64_id),
        ("inq_vend_specific", was.inq_vend_specific != is.inq_vend_specific),
        ("scsi_device_name", was.scsi_device_name != is.scsi_device_name),
    ];
    if old.handler.name() != new.handler.name() {
        found.fixed.push("HANDLER");
    }
    for (name, _) in compared.into_iter().filter(|(_, differs)| *differs) {
        match schema::attribute(Level::Device(u8::MAX), name).map(|row| row.change) {
            Some(Change::Running) => found.running.push(name),
            Some(Change::Reopen) => found.fixed.push(name),
            None => unreachable!("every name that is compared stands in the schema"),
        }
    }
    if old.kept != new.kept {
        // They have no effect, whatever the schema says of them.
        found.running.push("what is not in effect");
    }
    if old.handler.name() != new.handler.name() {
        // Its size is another thing with another handler.
        found.running.retain(|name| *name != "size");
    }
    found
}

/// The old device with those of the new one's attributes that may change while it is open.
pub(super) fn with_running_attributes(old: &Device, new: &Device) -> Device {
    let mut device = old.clone();
    if old.handler.name() == new.handler.name() {
        set_size(&mut device.handler, &new.handler);
    }
    device.lb_per_pb_exp = new.lb_per_pb_exp;
    device.opt_trans_len_bytes = new.opt_trans_len_bytes;
    device.max_tgt_dev_commands = new.max_tgt_dev_commands;
    device.explicit_alua = new.explicit_alua;
    device.identity = new.identity.clone();
    device.identity.t10_dev_id.clone_from(&old.identity.t10_dev_id);
    device.kept.clone_from(&new.kept);
    device.source = new.source;
    device
}

/// Whether one image is opened in two ways.
fn is_other_client(old: &Handler, new: &Handler) -> bool {
    let (Handler::Rbd(old), Handler::Rbd(new)) = (old, new) else { return false };
    (&old.client, &old.keyring, &old.options) != (&new.client, &new.keyring, &new.options)
}

fn set_size(handler: &mut Handler, like: &Handler) {
    match (handler, like) {
        (Handler::FileIo { size_bytes: mine, .. }, Handler::FileIo { size_bytes, .. })
        | (Handler::BlockIo { size_bytes: mine, .. }, Handler::BlockIo { size_bytes, .. }) => {
            *mine = *size_bytes
        }
        (Handler::NullIo { size_bytes: mine, .. }, Handler::NullIo { size_bytes, .. })
        | (Handler::Ram { size_bytes: mine }, Handler::Ram { size_bytes }) => *mine = *size_bytes,
        (Handler::Rbd(_), Handler::Rbd(_)) => {}
        _ => unreachable!("the caller asks with two devices of one handler"),
    }
}
