-- Evens out what nodes own. Follows common.lua.

-- Asks nodes that own more than their share for idle devices, as many as others have room for below
-- theirs, in small steps; comes back until nothing is left to move.
local function balance()
  local nodes, total = {}, 0
  for _, node in ipairs(live('devices')) do
    local owned = call('SCARD', P .. 'leases:' .. node) + call('SCARD', P .. 'given:' .. node)
    nodes[#nodes + 1] = { node, owned, tonumber(call('HGET', P .. 'node:' .. node, 'capacity') or 0) }
    total = total + owned
  end
  if #nodes < 2 then return end
  local share, wanted, moved = math.ceil(total / #nodes), 0, 0
  for _, n in ipairs(nodes) do wanted = wanted + math.max(0, math.min(share, n[3]) - n[2]) end
  for _, n in ipairs(nodes) do
    local spare = math.min(n[2] - share, wanted - moved, 50)
    if spare > 0 then
      for _, device in ipairs(call('SRANDMEMBER', P .. 'idle:' .. n[1], spare)) do
        hand_over(n[1], device)
        moved = moved + 1
      end
    end
  end
  if moved > 0 then call('ZADD', P .. 'timers', int(now + 1000000), 'b:') end
end
