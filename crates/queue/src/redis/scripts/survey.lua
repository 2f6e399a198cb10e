-- What a placer has to know. ARGV[3..]: devices.
-- Answer: those of them that no living node has; for each living node that owns devices its name, how
-- many it owns, how many of those are idle, its capacity.
local homeless, nodes = {}, {}
for at = 3, #ARGV do
  local v = call('HMGET', P .. 'device:' .. ARGV[at], 'node', 'epoch')
  if not v[1] or (not v[2] and call('HGET', P .. 'node:' .. v[1], 'alive') ~= '1') then
    homeless[#homeless + 1] = ARGV[at]
  end
end
if #homeless > 0 then
  for _, node in ipairs(live('devices')) do
    local owned = call('SCARD', P .. 'leases:' .. node) + call('SCARD', P .. 'given:' .. node)
    nodes[#nodes + 1] = { node, tostring(owned), tostring(call('SCARD', P .. 'idle:' .. node)),
      call('HGET', P .. 'node:' .. node, 'capacity') or '0' }
  end
end
return answer(homeless, nodes)
