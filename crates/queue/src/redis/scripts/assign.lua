-- Gives devices that wait to the nodes that were chosen, where nobody else was quicker.
-- ARGV[3..]: device and node, in turn. Answer: the devices that nobody took.
local left = {}
for at = 3, #ARGV, 2 do
  local device, node = ARGV[at], ARGV[at + 1]
  local v = call('HMGET', P .. 'device:' .. device, 'node', 'epoch', 'queued')
  local taken = v[2] or (v[1] and call('HGET', P .. 'node:' .. v[1], 'alive') == '1')
  if tonumber(v[3] or 0) == 0 or taken then
    call('SREM', P .. 'homeless', device)
  elseif call('SISMEMBER', P .. 'live:devices', node) == 1 then
    if v[1] then call('SREM', P .. 'given:' .. v[1], device) end
    give(device, node)
    refresh(device)
  else
    left[#left + 1] = device
  end
end
return answer(left)
