-- How an attempt to deliver went.
-- ARGV[3] message, [4] epoch, [5] 'D' done with, 'A' again, 'L' later without counting, 'H' still held,
-- [6] after or for how long in microseconds, [7] the event that says why it was given up, or ''.
-- Answer: '1' when it counts, '0' when the epoch is stale.
local id, epoch, how, delay, what = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7]
local key = P .. 'job:' .. id
local v = call('HMGET', key, 'courier', 'hidden', 'expires', 'key')
if not v[1] or v[1] ~= epoch then return answer('0') end
if how == 'D' then
  call('ZREM', P .. 'outbox', id)
  if v[2] then
    call('DEL', key)
  else
    call('HDEL', key, 'courier', 'attempts', 'notify')
    keep_until(id, v[4], tonumber(v[3]))
  end
  if what ~= '' then event(int(now), id, nil, what) end
else
  if how == 'L' then call('HINCRBY', key, 'attempts', -1) end
  if how ~= 'H' then call('HDEL', key, 'courier') end
  call('ZADD', P .. 'outbox', int(now + delay), id)
end
outbox_changed()
return answer('1')
