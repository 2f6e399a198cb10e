-- When messages of the outbox are due. Follows common.lua.

-- A message of the outbox is due, perhaps later: the nodes are told when its time comes.
local function outbox_changed()
  local first = call('ZRANGE', P .. 'outbox', 0, 0, 'WITHSCORES')
  if not first[2] then
    call('ZREM', P .. 'timers', 'o:')
  elseif tonumber(first[2]) <= now then
    for _, role in ipairs({ 'devices', 'fifo' }) do
      for _, node in ipairs(live(role)) do tell(node, 'outbox') end
    end
    -- Those that are due have been told of; the timer is for the next one.
    local later = call('ZRANGEBYSCORE', P .. 'outbox', '(' .. int(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if later[2] then call('ZADD', P .. 'timers', later[2], 'o:') else call('ZREM', P .. 'timers', 'o:') end
  else
    call('ZADD', P .. 'timers', first[2], 'o:')
  end
end
