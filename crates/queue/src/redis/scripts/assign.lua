-- Gives devices that wait to the nodes that were chosen, where nobody else was quicker.
-- ARGV[3..]: device and node, in turn. Answer: the devices that nobody took.
local left = {}
for at = 3, #ARGV, 2 do
  local device, node = ARGV[at], ARGV[at + 1]
  local d = dev(device)
  local taken = d.epoch or (d.node and call('HGET', P .. 'node:' .. d.node, 'alive') == '1')
  if d.queued == 0 or taken then
    call('SREM', P .. 'homeless', device)
  elseif call('SISMEMBER', P .. 'live:devices', node) == 1 then
    if d.node then call('SREM', P .. 'given:' .. d.node, device) end
    give(device, node)
    refresh(device)
  else
    left[#left + 1] = device
  end
end
return answer(left)
