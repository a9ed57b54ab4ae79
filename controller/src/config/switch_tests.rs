//! Documents with several switches.

use super::tests::good;
use super::*;

/// The good document with a second switch, which the wan is on.
pub(crate) fn two_switches() -> Document {
    let mut document = good();
    document.slow_path.as_mut().unwrap().device = None;
    document.switch[0].slow_path_device = Some("sp0".into());
    let mut second = document.switch[0].clone();
    second.name = "sw2".into();
    second.address = "127.0.0.1:9560".into();
    second.slow_path_device = Some("sp1".into());
    document.switch.push(second);
    for interface in &mut document.interface {
        if interface.underlay.is_none() {
            let on = if interface.name == "wan" {
                "sw2"
            } else {
                "sw1"
            };
            interface.switch = Some(on.into());
        }
    }
    document
}

#[test]
fn interfaces_are_on_their_switches() {
    let config = validate(&two_switches()).unwrap();
    let on: Vec<_> = config
        .interfaces
        .iter()
        .map(|found| {
            let place = found.interface.switch.place();
            (found.interface.name.as_str(), place, found.switch.as_str())
        })
        .collect();
    let wanted = ["red", "blue", "fabric", "wan", "green", "both"].map(|name| match name {
        "wan" => (name, 1, "sw2"),
        name => (name, 0, "sw1"),
    });
    assert_eq!(on, wanted);
    // The same port of another switch is another port.
    let mut same = two_switches();
    same.interface[3].port = same.interface[0].port;
    assert!(validate(&same).is_ok());
}

#[test]
fn what_is_wrong_with_several_switches_is_named() {
    let fault = |expected: &str, edit: fn(&mut Document)| {
        let mut document = two_switches();
        edit(&mut document);
        let faults = validate(&document).unwrap_err();
        let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults, [expected]);
    };
    fault(
        "slow_path.device: there are several switches: each has its own (slow_path_device)",
        |d| d.slow_path.as_mut().unwrap().device = Some("sp9".into()),
    );
    fault(
        "switch[1].slow_path_device: is missing: name the Linux interface towards the switch's slow-path port",
        |d| d.switch[1].slow_path_device = None,
    );
    fault(
        "switch[1].slow_path_device: the device sp0 is taken by switch[0].slow_path_device",
        |d| d.switch[1].slow_path_device = Some("sp0".into()),
    );
    fault(
        "switch[1].address: device 1 at 127.0.0.1:9559 is taken by switch[0].address",
        |d| d.switch[1].address = d.switch[0].address.clone(),
    );
    fault(
        "switch[1].name: the name sw1 is taken by switch[0].name",
        |d| {
            d.switch[1].name = "sw1".into();
            d.interface[3].switch = None;
            d.interface[3].switch = Some("sw1".into());
            d.interface[3].port = Some(9);
        },
    );
    fault(
        "interface[0].switch: there are several switches: say which (known: sw1, sw2)",
        |d| d.interface[0].switch = None,
    );
    fault(
        "interface[0].switch: no switch named \"sw3\" (known: sw1, sw2)",
        |d| d.interface[0].switch = Some("sw3".into()),
    );
    fault("switch: 9 switches are configured: 8 at most", |d| {
        for n in 2..9 {
            let mut more = d.switch[0].clone();
            more.name = format!("more{n}");
            more.address = format!("127.0.0.1:{}", 9600 + n);
            more.slow_path_device = Some(format!("more{n}"));
            d.switch.push(more);
        }
    });
    // A tunnel is where its underlay is.
    let mut document = two_switches();
    let tunnel = document
        .interface
        .iter_mut()
        .find(|i| i.underlay.is_some())
        .unwrap();
    tunnel.switch = Some("sw2".into());
    let faults = validate(&document).unwrap_err();
    assert!(
        faults[0]
            .to_string()
            .ends_with("a tunnel is on its underlay's switch, and \"fabric\" is on \"sw1\""),
        "{}",
        faults[0]
    );
}

/// A daemon knows the switches that it was started with by their names, wherever they stand.
#[test]
fn interfaces_of_a_switch_that_comes_later_are_on_none() {
    let started = validate(&two_switches()).unwrap();
    let mut later = two_switches();
    later.switch.reverse();
    let (config, waiting) = started.changed_to(validate(&later).unwrap());
    assert_eq!(waiting, ["switch", "slow_path"]);
    assert_eq!(config.interfaces, started.interfaces);

    let one = validate(&good()).unwrap();
    let (config, waiting) = one.changed_to(validate(&two_switches()).unwrap());
    assert_eq!(waiting, ["switch", "slow_path"]);
    let on = |name: &str| {
        let mut all = config.interfaces.iter();
        all.find(|found| found.interface.name == name)
            .unwrap()
            .interface
            .switch
    };
    assert_eq!(on("red"), shunt_p4::SwitchIndex::MIN);
    assert_eq!(on("wan"), shunt_p4::SwitchIndex::ABSENT);
}
