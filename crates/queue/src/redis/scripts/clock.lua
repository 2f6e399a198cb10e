-- Guards leases against a clock that does not run evenly. Follows common.lua.

-- The clock went back: what waits for its time (next tries, messages) waits no longer for that.
local function set_back(by)
  for _, id in ipairs(call('ZRANGE', P .. 'outbox', 0, -1)) do call('ZINCRBY', P .. 'outbox', int(by), id) end
  local first = call('ZSCORE', P .. 'timers', 'o:')
  if first then call('ZINCRBY', P .. 'timers', int(by), 'o:') end
  for _, item in ipairs(call('ZRANGE', P .. 'timers', 0, -1)) do
    local key = string.sub(item, 1, 2) == 'j:' and P .. 'job:' .. string.sub(item, 3)
    if key and call('HGET', key, 'status') == 'scheduled' then
      call('ZINCRBY', P .. 'timers', int(by), item)
      call('HINCRBY', key, 'due', int(by))
    end
  end
end

-- Every process looks several times in a lease. When the clock says that nobody has for longer, or
-- has gone back, it was set, or the server slept or was away: how long a node has been silent cannot
-- be told. So every living node has a whole lease from now, which is more than it believes itself.
local function watch_clock()
  local seen = tonumber(call('GET', P .. 'seen') or real)
  call('SET', P .. 'seen', int(real))
  local gap = real - seen
  if gap >= 0 and gap <= CLOCK_GAP then return end
  if gap < 0 then set_back(gap) end
  local untl = int(now + LEASE)
  for _, node in ipairs(call('SMEMBERS', P .. 'nodes')) do
    local key = P .. 'node:' .. node
    if call('HGET', key, 'alive') == '1' then
      call('HSET', key, 'until', untl)
      call('ZADD', P .. 'timers', untl, 'n:' .. node)
    end
  end
end

watch_clock()
