//! HANDLER and its DEVICEs.

use portico_model::configuration::{
    Configuration, DEVICES_MAX, Device, Handler, IdentityOverrides, NULLIO_SIZE_BYTES_DEFAULT,
    OPT_TRANS_LEN_BYTES_DEFAULT, RbdImage, Source,
};

use super::attributes::Attributes;
use super::sections::{Expected, last_of_each, sections};
use super::{Context, KnownDevice};
use crate::scst_conf::diagnostic::{Code, Diagnostic, quoted};
use crate::scst_conf::lexer::Word;
use crate::scst_conf::schema::{self, BLOCK, CDROM, FILE, Level, NULL, RAM, RBD};
use crate::scst_conf::syntax::Statement;
use crate::scst_conf::text::Span;
use crate::scst_conf::value;

/// Bytes of a device's name.
const NAME_LENGTH_BYTES_MAX: usize = 255;

/// Where the parts of a device are written, for the checks between devices. In the order of the configuration's devices.
pub(super) struct DeviceSpans {
    pub(super) name: Span,
    pub(super) filename: Option<Span>,
    pub(super) pr_file_name: Option<Span>,
    pub(super) t10_dev_id: Option<Span>,
    pub(super) naa_id: Option<Span>,
    pub(super) eui64_id: Option<Span>,
}

/// Reads a section of a handler that is in effect.
pub(super) fn read(
    context: &mut Context<'_>,
    configuration: &mut Configuration,
    spans: &mut Vec<DeviceSpans>,
    bit: u8,
    section: &Statement,
) {
    let place = format!("HANDLER {}", schema::handler_name(bit));
    Attributes::read(context, Level::Handler, &place, section.body());
    let found = sections(context, &place, &[Expected::named("DEVICE")], Level::Handler, section.body());
    for section in last_of_each(context, found) {
        let name = &section.words[1];
        if configuration.devices.len() >= DEVICES_MAX {
            let message = format!("a configuration has at most {DEVICES_MAX} devices");
            return context.report(Diagnostic::error(Code::TooLarge, name.span, message));
        }
        let place = format!("DEVICE {} of {}", quoted(&name.text), schema::handler_name(bit));
        let attributes = Attributes::read(context, Level::Device(bit), &place, section.body());
        sections(context, &place, &[], Level::Device(bit), section.body());
        if !remember(context, name, KnownDevice::Served(name.span)) {
            continue;
        }
        if let Some(device) = device(context, bit, section, &attributes) {
            configuration.devices.push(device);
            spans.push(DeviceSpans {
                name: name.span,
                filename: attributes.span("filename").or_else(|| attributes.span("image")),
                pr_file_name: attributes.span("pr_file_name"),
                t10_dev_id: attributes.span("t10_dev_id"),
                naa_id: attributes.span("naa_id"),
                eui64_id: attributes.span("eui64_id"),
            });
        }
    }
}

/// Checks the attributes of `vcdrom`, which is not in effect.
pub(super) fn check_cdroms(context: &mut Context<'_>, section: &Statement) {
    Attributes::read(context, Level::Handler, "HANDLER vcdrom", section.body());
    for device in section.body().iter().filter(|statement| statement.keyword() == "DEVICE") {
        Attributes::read(context, Level::Device(CDROM), "a DEVICE of vcdrom", device.body());
    }
}

/// Remembers DEVICEs of a section that is not in effect, so that a LUN of them is not called unknown.
pub(super) fn remember_unserved(context: &mut Context<'_>, statements: &[Statement]) {
    for device in statements.iter().filter(|statement| statement.keyword() == "DEVICE") {
        if let Some(name) = device.word(1) {
            remember(context, name, KnownDevice::Unserved(name.span));
        }
    }
}

/// Takes a device's name; `false` if it is taken or no name at all.
fn remember(context: &mut Context<'_>, name: &Word, device: KnownDevice) -> bool {
    if name.broken {
        // Whatever it was meant to be: a LUN that names it is not at fault.
        context.devices.entry(name.text.clone()).or_insert(device);
        return false;
    }
    let is_name = name.text.len() <= NAME_LENGTH_BYTES_MAX
        && name.text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    if !is_name {
        let message =
            format!("a device's name is ASCII, without blanks and `/`, at most {NAME_LENGTH_BYTES_MAX} long");
        context.report(Diagnostic::error(Code::BadValue, name.span, message));
        return false;
    }
    if let Some(first) = context.devices.get(&name.text) {
        let message = format!("the device name {} is used twice", quoted(&name.text));
        let error = Diagnostic::error(Code::DuplicateName, name.span, message)
            .label("again here")
            .related(first.span(), "first used here")
            .hint("a device's name is unique across all handlers: LUNs refer to it");
        context.report(error);
        return false;
    }
    context.devices.insert(name.text.clone(), device);
    true
}

fn device(
    context: &mut Context<'_>,
    bit: u8,
    section: &Statement,
    attributes: &Attributes,
) -> Option<Device> {
    let level = Level::Device(bit);
    let name = &section.words[1];
    let block_size = attributes.read_with("blocksize", |text| value::block_size(text).ok());
    let handler = handler(context, bit, name, attributes)?;
    let mut device = Device::new(name.text.clone(), handler);
    device.block_size_bytes = block_size.unwrap_or(device.block_size_bytes);
    device.read_only = attributes.flag(level, "read_only");
    device.write_through = attributes.flag(level, "write_through");
    device.nv_cache = attributes.flag(level, "nv_cache");
    device.o_direct = attributes.flag(level, "o_direct");
    device.rotational = attributes.flag(level, "rotational");
    device.thin_provisioned = attributes.flag(level, "thin_provisioned");
    device.removable = attributes.flag(level, "removable");
    device.lb_per_pb_exp = attributes.flag(level, "lb_per_pb_exp");
    device.opt_trans_len_bytes = attributes.number("opt_trans_len").unwrap_or(OPT_TRANS_LEN_BYTES_DEFAULT);
    device.max_tgt_dev_commands = attributes.number("max_tgt_dev_commands");
    device.explicit_alua = attributes.flag(level, "expl_alua");
    device.pr_file_name = attributes.text("pr_file_name");
    device.identity = identity(context, attributes);
    device.kept = attributes.kept();
    device.source = Source { line: name.span.line };

    check_refused_together(context, &device, attributes);
    if bit == RBD {
        check_rbd(context, attributes);
    }
    check_size(context, &device, attributes);
    Some(device)
}

fn handler(context: &mut Context<'_>, bit: u8, name: &Word, attributes: &Attributes) -> Option<Handler> {
    let size_bytes = attributes
        .read_with("size", |text| value::bytes(text).ok())
        .or_else(|| attributes.read_with("size_mb", |text| value::mebibytes(text).ok()));
    let mut required = |what: &str, hint: &str| {
        let message = format!("DEVICE {} of {} has no {what}", quoted(&name.text), schema::handler_name(bit));
        context.report(Diagnostic::error(Code::MissingAttribute, name.span, message).hint(hint));
    };
    match bit {
        FILE | BLOCK => {
            let Some(filename) = attributes.text("filename") else {
                required("filename", "add `filename /path` to it");
                return None;
            };
            Some(match bit {
                FILE => Handler::FileIo { filename, size_bytes },
                _ => Handler::BlockIo { filename, size_bytes },
            })
        }
        NULL => Some(Handler::NullIo {
            size_bytes: size_bytes.unwrap_or(NULLIO_SIZE_BYTES_DEFAULT),
            dummy: attributes.flag(Level::Device(NULL), "dummy"),
        }),
        RAM => {
            let Some(size_bytes) = size_bytes else {
                required("size", "add `size bytes` to it");
                return None;
            };
            Some(Handler::Ram { size_bytes })
        }
        RBD => {
            let Some(image) = rbd_image(attributes) else {
                required("image", "add `pool POOL` and `image IMAGE`, or `filename rbd:POOL/IMAGE`");
                return None;
            };
            Some(Handler::Rbd(Box::new(image)))
        }
        _ => unreachable!("the schema serves five handlers"),
    }
}

/// The image, by its parts or by a file name.
fn rbd_image(attributes: &Attributes) -> Option<RbdImage> {
    let by_name = attributes.read_with("filename", |text| value::rbd_image(text).ok());
    let by_parts = || Some(RbdImage::new(attributes.text("pool")?, attributes.text("image")?));
    let mut image = by_name.or_else(by_parts)?;
    image.namespace = image.namespace.or_else(|| attributes.text("namespace"));
    image.snapshot = image.snapshot.or_else(|| attributes.text("snapshot"));
    image.client = attributes.text("client").unwrap_or(image.client);
    image.conf = attributes.text("conf");
    image.keyring = attributes.text("keyring");
    image.options =
        attributes.all("option").filter_map(|given| value::name_and_value(&given.value).ok()).collect();
    Some(image.named())
}

/// What an RBD image is told twice, or in vain.
fn check_rbd(context: &mut Context<'_>, attributes: &Attributes) {
    if let Some(filename) = attributes.span("filename") {
        for part in ["pool", "namespace", "image", "snapshot"] {
            if let Some(span) = attributes.span(part) {
                let message = format!("`filename` and `{part}` both name the image");
                let error = Diagnostic::error(Code::Conflict, span, message)
                    .related(filename, "the image is named here")
                    .hint("name it by `filename`, or by `pool` and `image`");
                context.report(error);
            }
        }
    }
    for given in attributes.all("option") {
        let of_the_cache = value::name_and_value(&given.value).is_ok_and(|(name, value)| {
            matches!(name.as_str(), "rbd_cache") && !matches!(value.as_str(), "false" | "0" | "no")
        });
        if of_the_cache {
            let message = "librbd's cache stays off: with it, a write that failed could be answered as good";
            let error = Diagnostic::error(Code::Conflict, given.span, message).hint("remove the line");
            context.report(error);
        }
    }
}

fn identity(context: &mut Context<'_>, attributes: &Attributes) -> IdentityOverrides {
    let naa_id = attributes.read_with("naa_id", |text| value::hex(text, &[8, 16]).ok());
    if let (Some(naa), Some(span)) = (&naa_id, attributes.span("naa_id"))
        && naa.bytes().len() == 8
        && naa.bytes()[0] >> 4 == 6
    {
        let error =
            Diagnostic::error(Code::BadValue, span, "an `naa_id` that begins with 6 has 16 bytes, not 8")
                .hint("begin an identifier of 8 bytes with 2, 3 or 5");
        context.report(error);
    }
    IdentityOverrides {
        t10_vend_id: attributes.text("t10_vend_id"),
        prod_id: attributes.text("prod_id"),
        prod_rev_lvl: attributes.text("prod_rev_lvl"),
        t10_dev_id: attributes.text("t10_dev_id"),
        vend_specific_id: attributes.text("vend_specific_id"),
        usn: attributes.text("usn"),
        naa_id,
        eui64_id: attributes.read_with("eui64_id", |text| value::hex(text, &[8, 12, 16]).ok()),
        inq_vend_specific: attributes.text("inq_vend_specific"),
        scsi_device_name: attributes.text("scsi_device_name"),
    }
}

fn check_refused_together(context: &mut Context<'_>, device: &Device, attributes: &Attributes) {
    for (name, set) in [("write_through", device.write_through), ("nv_cache", device.nv_cache)] {
        if let (true, true, Some(span), Some(read_only)) =
            (device.read_only, set, attributes.span(name), attributes.span("read_only"))
        {
            let message = format!("`read_only 1` and `{name} 1` refuse each other");
            let error = Diagnostic::error(Code::Conflict, span, message)
                .related(read_only, "nothing is ever written to this device")
                .hint("remove one of the two");
            context.report(error);
        }
    }
}

fn check_size(context: &mut Context<'_>, device: &Device, attributes: &Attributes) {
    let bytes = attributes.read_with("size", |text| value::bytes(text).ok());
    let mebibytes = attributes.read_with("size_mb", |text| value::mebibytes(text).ok());
    if let (Some(size), Some(size_mb), Some(span), Some(first)) =
        (bytes, mebibytes, attributes.span("size_mb"), attributes.span("size"))
        && size != size_mb
    {
        let error = Diagnostic::error(Code::Conflict, span, "`size` and `size_mb` say different sizes")
            .label(format!("{size_mb} bytes"))
            .related(first, format!("{size} bytes"))
            .hint("remove one of the two");
        return context.report(error);
    }
    let span = attributes.span("size").or_else(|| attributes.span("size_mb"));
    if let (Some(size), Some(span)) = (device.handler.size_bytes(), span)
        && size % u64::from(device.block_size_bytes) != 0
    {
        let block = u64::from(device.block_size_bytes);
        let message = format!("the size is no multiple of the block size, {block} bytes");
        let hint = match size / block * block {
            0 => format!("the least is {block}"),
            lower => format!("{lower} would be one"),
        };
        context.report(Diagnostic::error(Code::BadValue, span, message).hint(hint));
    }
}
