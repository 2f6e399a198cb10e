//! What a user of each platform would type, and what the device would say.

/// One platform.
pub struct Facts {
    /// The platform and the persona.
    pub name: &'static str,
    /// A command that shows something.
    pub show: &'static str,
    /// What it shows.
    pub says: &'static str,
    /// A change.
    pub change: &'static [&'static str],
    /// What is in the configuration then.
    pub holds: &'static str,
    /// Lines that are taken, before
    pub fine: &'static [&'static str],
    /// the line that is refused, before
    pub bad: &'static str,
    /// the line that must not be sent.
    pub late: &'static str,
    /// Gives it the name `edge-7`.
    pub rename: &'static [&'static str],
    /// A change whose commit is refused, where there is a commit.
    pub unfit: &'static [&'static str],
    /// The secret of the privileged mode.
    pub secret: &'static str,
    /// The privileged mode in the persona.
    pub privileged: &'static str,
    /// The persona has no privileged mode although the platform may have one.
    pub no_enable: bool,
    /// Has a pager.
    pub pages: bool,
    /// Modes cannot be told apart: a change that fails in the middle of one stays there.
    pub stays: bool,
    /// Without a candidate, but an open block takes effect only at its end.
    pub held: bool,
    /// What autodetect makes of it; empty: nothing.
    pub detected: &'static str,
}

const NONE: Facts = Facts {
    name: "",
    show: "show version",
    says: "",
    change: &[],
    holds: "",
    fine: &[],
    bad: "nonsense",
    late: "",
    rename: &["hostname edge-7"],
    unfit: &[],
    secret: "enable",
    privileged: "privileged",
    no_enable: false,
    pages: true,
    stays: false,
    held: false,
    detected: "",
};

const IOS: Facts = Facts {
    change: &["interface GigabitEthernet0/7", "description to the roof"],
    holds: "description to the roof",
    fine: &["ntp server 10.9.9.9"],
    bad: "frobnicate 1",
    late: "ntp server 10.9.9.10",
    ..NONE
};

const VRP: Facts = Facts {
    show: "display version",
    change: &["interface GigabitEthernet0/0/5", "description roof"],
    holds: "description roof",
    fine: &["ntp-service unicast-server 10.9.9.9"],
    bad: "frob",
    late: "ntp-service unicast-server 10.9.9.10",
    rename: &["sysname edge-7"],
    ..NONE
};

pub const FACTS: &[Facts] = &[
    Facts { name: "cisco_ios", says: "Cisco IOS Software", detected: "cisco_ios", ..IOS },
    Facts { name: "cisco_xe", says: "ersion", detected: "cisco_xe", ..IOS },
    Facts { name: "ruijie_os", says: "S29_RGOS 11.4", detected: "ruijie_os", ..IOS },
    Facts { name: "zte_zxros", says: "ZTE ZXR10 Software", detected: "zte_zxros", ..IOS },
    Facts {
        name: "frr",
        says: "FRRouting 8.4.4",
        fine: &["ip route 10.66.0.0/16 Null0"],
        late: "ip route 10.67.0.0/16 Null0",
        pages: false,
        detected: "frr",
        ..IOS
    },
    Facts {
        name: "dell_os10",
        says: "OS10 Enterprise",
        change: &["interface ethernet1/1/2", "description roof"],
        holds: "description roof",
        detected: "dell_os10",
        ..IOS
    },
    Facts {
        name: "arista_eos",
        says: "Arista DCS-7050SX3",
        change: &["interface Ethernet7", "description spare"],
        holds: "interface Ethernet7\n   description spare",
        detected: "arista_eos",
        ..IOS
    },
    Facts {
        name: "cisco_nxos",
        says: "NXOS: version 9.3(10)",
        change: &["vlan 33", "name lab"],
        holds: "vlan 33\n  name lab",
        privileged: "exec",
        detected: "cisco_nxos",
        ..IOS
    },
    Facts {
        name: "cisco_xr",
        says: "Version 7.5.2",
        change: &["interface GigabitEthernet0/0/0/1", "description roof"],
        holds: "description roof",
        fine: &["domain name early.example"],
        late: "domain name late.example",
        unfit: &["domain name refuse-commit"],
        privileged: "exec",
        detected: "cisco_xr",
        ..IOS
    },
    Facts {
        name: "cisco_asa",
        says: "Version 9.16(4)",
        change: &["interface GigabitEthernet0/3", "description roof"],
        holds: "description roof",
        fine: &["logging enable"],
        late: "logging timestamp",
        detected: "cisco_asa",
        ..IOS
    },
    Facts {
        name: "hp_procurve",
        says: "WB.16.10.0016",
        change: &["vlan 20", "name \"lab\""],
        holds: "vlan 20\n   name \"lab\"",
        fine: &["sntp server priority 2 10.9.9.9"],
        late: "sntp server priority 3 10.9.9.9",
        rename: &["hostname \"edge-7\""],
        privileged: "manager",
        detected: "hp_procurve",
        ..IOS
    },
    Facts {
        name: "aruba_aoscx",
        says: "FL.10.10.1030",
        change: &["vlan 20", "name lab"],
        holds: "vlan 20\n    name lab",
        privileged: "manager",
        detected: "aruba_aoscx",
        ..IOS
    },
    Facts { name: "huawei", says: "Version 5.170", detected: "huawei", ..VRP },
    Facts {
        name: "huawei_vrpv8",
        says: "8.180",
        unfit: &["interface GigabitEthernet0/0/6", "description refuse-commit"],
        detected: "huawei_vrpv8",
        ..VRP
    },
    Facts {
        name: "hp_comware",
        says: "Comware Software",
        change: &["interface GigabitEthernet1/0/2", "description roof"],
        detected: "hp_comware",
        ..VRP
    },
    Facts {
        name: "juniper_junos",
        says: "Junos: 21.4R3-S5.4",
        change: &["set interfaces ge-0/0/1 description roof"],
        holds: "description roof",
        fine: &["set snmp location early"],
        bad: "set sistem host-name x",
        late: "set snmp location late",
        rename: &["set system host-name edge-7"],
        unfit: &["set snmp location refuse-commit"],
        detected: "juniper_junos",
        ..NONE
    },
    Facts {
        name: "vyos",
        says: "VyOS 1.3.3",
        change: &["set interfaces ethernet eth0 description roof"],
        holds: "description roof",
        fine: &["set system domain-name early.example"],
        bad: "set nonsense a",
        late: "set system domain-name late.example",
        rename: &["set system host-name edge-7"],
        unfit: &["set system domain-name refuse-commit"],
        detected: "vyos",
        ..NONE
    },
    Facts {
        name: "paloalto_panos",
        show: "show system info",
        says: "sw-version: 10.2.4",
        change: &["set deviceconfig system timezone CET"],
        holds: "timezone CET",
        fine: &["set deviceconfig system domain early.example"],
        bad: "set nonsense a",
        late: "set deviceconfig system domain late.example",
        rename: &["set deviceconfig system hostname edge-7"],
        unfit: &["set deviceconfig system domain refuse-commit"],
        detected: "paloalto_panos",
        ..NONE
    },
    Facts {
        name: "nokia_sros",
        says: "TiMOS-C-22.10",
        change: &["/configure system location lab"],
        holds: "location lab",
        fine: &["/configure system contact early"],
        bad: "/configure nonsense x",
        late: "/configure system contact late",
        rename: &["/configure system name edge-7"],
        unfit: &["/configure system location refuse-commit"],
        no_enable: true,
        detected: "nokia_sros",
        ..NONE
    },
    Facts {
        name: "nokia_srl",
        says: "v23.3.2",
        change: &["set / system information location lab"],
        holds: "location lab",
        fine: &["set / system information contact early"],
        bad: "set / nonsense x",
        late: "set / system information contact late",
        rename: &["set / system name host-name edge-7"],
        unfit: &["set / system information location refuse-commit"],
        pages: false,
        detected: "nokia_srl",
        ..NONE
    },
    Facts {
        name: "mikrotik_routeros",
        show: "/system resource print",
        says: "7.11.2",
        change: &["/ip address add address=10.5.0.1/24 interface=ether2"],
        holds: "interface=ether2",
        fine: &["/ip dns set servers=10.0.0.54"],
        bad: "/nonsense",
        late: "/ip dns set servers=10.0.0.55",
        rename: &["/system identity set name=edge-7"],
        detected: "mikrotik_routeros",
        ..NONE
    },
    Facts {
        name: "extreme_exos",
        says: "31.7.1.4",
        change: &["create vlan \"lab\""],
        holds: "create vlan \"lab\"",
        fine: &["configure timezone name UTC 60 noautodst"],
        late: "configure timezone name UTC 120 noautodst",
        rename: &["configure snmp sysName \"edge-7\""],
        detected: "extreme_exos",
        ..NONE
    },
    Facts {
        name: "f5_tmsh",
        show: "show sys version",
        says: "16.1.3.2",
        change: &["create ltm pool lab"],
        holds: "create ltm pool lab",
        fine: &["create ltm pool early"],
        late: "create ltm pool late",
        rename: &["modify sys global-settings hostname edge-7"],
        detected: "f5_tmsh",
        ..NONE
    },
    Facts {
        name: "checkpoint_gaia",
        show: "show version all",
        says: "R81.10",
        change: &["set interface eth0 comments \"roof\""],
        holds: "comments \"roof\"",
        fine: &["set dns primary 10.0.0.53"],
        late: "set dns primary 10.0.0.54",
        rename: &["set hostname edge-7"],
        privileged: "expert",
        detected: "checkpoint_gaia",
        ..NONE
    },
    Facts {
        name: "fortinet",
        show: "get system status",
        says: "FortiGate-VM64 v7.2.5",
        change: &["config system interface", "edit port1", "set alias roof", "next", "end"],
        holds: "set alias roof",
        fine: &["config system interface", "edit port1", "set alias early"],
        bad: "bogus 1",
        late: "set alias late",
        rename: &["config system global", "set hostname edge-7", "end"],
        held: true,
        detected: "fortinet",
        ..NONE
    },
    Facts {
        name: "linux",
        show: "uname -a",
        says: "Linux",
        change: &["mkdir -p /tmp/lab", "cd /tmp/lab"],
        fine: &["cd /tmp"],
        bad: "frobnicate-7",
        late: "cd /",
        rename: &[],
        secret: "admin",
        privileged: "root",
        pages: false,
        detected: "linux",
        ..NONE
    },
    Facts {
        name: "generic",
        says: "version 1.0",
        change: &["configure", "description roof", "exit"],
        holds: "description roof",
        fine: &["configure", "description early"],
        bad: "frobnicate",
        late: "description late",
        rename: &["configure", "hostname edge-7", "exit"],
        stays: true,
        ..NONE
    },
];
