-- Gives a device back; a job that still runs under the lease is settled as lost.
-- ARGV[3] node, [4] device, [5] the lease's epoch, [6] '1' when the caller vouches for its notes.
local node, device, epoch = ARGV[3], ARGV[4], ARGV[5]
local d = dev(device)
if d.node ~= node or d.epoch ~= epoch then return answer('0') end
local running, moving = d.pinned, d.moving
call('SREM', P .. 'leases:' .. node, device)
call('SREM', P .. 'wake:' .. node, 'd:' .. device)
call('SREM', P .. 'wake:' .. node, 'h:' .. device)
call('SREM', P .. 'idle:' .. node, device)
set(d, 'epoch', false)
set(d, 'moving', false)
set(d, 'idle', false)
if PLACED and not moving and d.queued > 0 and call('SISMEMBER', P .. 'live:devices', node) == 1 then
  -- Jobs came while it was given back: they stay with this node.
  call('SADD', P .. 'given:' .. node, device)
else
  set(d, 'node', false)
  unmap(device)
end
if running then settle(running, ARGV[6] == '1') end
refresh(device)
room()
return answer('1')
