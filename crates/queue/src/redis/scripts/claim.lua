-- Takes the next job of a device's own queue.
-- ARGV[3] node, [4] device, [5] the lease's epoch, [6] ticket by which a lost answer is taken back.
-- Answer: epoch of the claim, the job, its sealed request and its record, or nothing.
local node, device, lease, ticket = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local d = dev(device)
if d.node ~= node or d.epoch ~= lease then return answer() end
call('SREM', P .. 'wake:' .. node, 'd:' .. device)
if call('HGET', P .. 'node:' .. node, 'alive') ~= '1' then return answer() end
local id = next_own(d)
if not id then return answer() end
return answer(unpack(start(id, node, 'pinned', ticket)))
