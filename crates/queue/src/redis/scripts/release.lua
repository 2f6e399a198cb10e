-- Gives a device back; a job that still runs under the lease is settled as lost.
-- ARGV[3] node, [4] device, [5] the lease's epoch, [6] '1' when the caller vouches for its notes.
local node, device, epoch = ARGV[3], ARGV[4], ARGV[5]
local key = P .. 'device:' .. device
local v = call('HMGET', key, 'node', 'epoch', 'pinned', 'moving', 'queued')
if v[1] ~= node or v[2] ~= epoch then return answer('0') end
call('SREM', P .. 'leases:' .. node, device)
call('SREM', P .. 'wake:' .. node, 'd:' .. device)
call('SREM', P .. 'wake:' .. node, 'h:' .. device)
call('SREM', P .. 'idle:' .. node, device)
call('HDEL', key, 'epoch', 'moving', 'idle')
if PLACED and not v[4] and tonumber(v[5] or 0) > 0 and call('SISMEMBER', P .. 'live:devices', node) == 1 then
  -- Jobs came while it was given back: they stay with this node.
  call('SADD', P .. 'given:' .. node, device)
else
  call('HDEL', key, 'node')
  unmap(device)
end
if v[3] then settle(v[3], ARGV[6] == '1') end
refresh(device)
room()
return answer('1')
