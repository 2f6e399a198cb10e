-- The nodes known. Answer: for each its name, capacity, '1' devices, '1' FifoQ, '1' alive, joined, renewed,
-- devices, running, devices leased, instance.
local found = {}
for _, node in ipairs(call('SMEMBERS', P .. 'nodes')) do
  local v = call('HMGET', P .. 'node:' .. node, 'capacity', 'devices', 'fifo', 'alive', 'joined', 'renewed', 'instance')
  if v[1] then
    local leased = call('SCARD', P .. 'leases:' .. node)
    found[#found + 1] = { node, v[1], v[2], v[3], v[4], v[5], v[6],
      tostring(leased + call('SCARD', P .. 'given:' .. node)), tostring(call('SCARD', P .. 'running:' .. node)),
      tostring(leased), v[7] or '' }
  end
end
return answer(found)
