package vlan_names

import rego.v1

details contains {"id": vlan.id, "switch": vlan.switch} if {
	some vlan in input.vlans
	not vlan.name
}
