-- Devices: what is known of each, who may start on it, which node has it. Follows common.lua.

local devices, in_order = {}, {}

-- A device as it stands, read once in a script.
local function dev(name)
  local d = devices[name]
  if not d then
    local v = call('HMGET', P .. 'device:' .. name, 'node', 'epoch', 'pinned', 'writer', 'fifo', 'entry',
      'queued', 'ready', 'idle', 'moving')
    d = { name = name, node = v[1], epoch = v[2], pinned = v[3], writer = v[4], fifo = v[5], entry = v[6],
      queued = tonumber(v[7] or 0), ready = v[8], idle = v[9], moving = v[10], new = {} }
    devices[name] = d
    in_order[#in_order + 1] = d
  end
  return d
end

-- Changes a fact of a device; false takes it away. It is written at the end of the script.
local function set(d, field, value)
  d[field], d.new[field], d.changed = value, value, true
end

local function keep(d)
  local key = P .. 'device:' .. d.name
  local sets, gone = { 'HSET', key }, { 'HDEL', key }
  for field, value in pairs(d.new) do
    if value == false then
      gone[#gone + 1] = field
    else
      sets[#sets + 1] = field
      sets[#sets + 1] = value
    end
  end
  if #sets > 2 then call(unpack(sets)) end
  if #gone > 2 then call(unpack(gone)) end
  d.new, d.changed = {}, false
end

local fifo_told = false

local function tell_fifo()
  if fifo_told then return end
  fifo_told = true
  for _, node in ipairs(live('fifo')) do tell(node, 'fifo') end
end

local function unmap(device)
  if call('HGET', HOST_MAP, device) then call('HDEL', HOST_MAP, device) end
end

-- A device with jobs, but without a node: somebody has to choose one.
local function seek_home(device)
  call('SADD', P .. 'homeless', device)
  call('ZADD', P .. 'timers', int(now), 'h:' .. device)
end

-- Asks a node to give one of its idle devices back.
local function hand_over(node, device)
  call('SREM', P .. 'idle:' .. node, device)
  local d = dev(device)
  set(d, 'idle', false)
  set(d, 'moving', '1')
  tell(node, 'h:' .. device)
end

-- Gives a device to a node that lives; a full node gives an idle one back for it.
local function give(device, node)
  set(dev(device), 'node', node)
  call('HSET', HOST_MAP, device, node)
  call('SADD', P .. 'given:' .. node, device)
  call('SREM', P .. 'homeless', device)
  call('ZREM', P .. 'timers', 'h:' .. device)
  local owned = call('SCARD', P .. 'leases:' .. node) + call('SCARD', P .. 'given:' .. node)
  if owned > tonumber(call('HGET', P .. 'node:' .. node, 'capacity') or 0) then
    local idle = call('SRANDMEMBER', P .. 'idle:' .. node)
    if idle then hand_over(node, idle) end
  end
end

-- Room came free: devices without a node may find one.
local function room()
  if not PLACED then return end
  for _, device in ipairs(call('SRANDMEMBER', P .. 'homeless', 20)) do
    call('ZADD', P .. 'timers', int(now), 'h:' .. device)
  end
end

-- The first that waits: its id, its place as a number and as text.
local function head(key)
  local first = call('ZRANGE', key, '0', '0', 'WITHSCORES')
  return first[1], tonumber(first[2]), first[2]
end

-- Says who may start now on a device that changed, and tells the nodes. Modifications start alone and
-- in turn; queries of the two ways may overlap and overtake, but never a modification.
local function arrange(d)
  local device, key = d.name, P .. 'device:' .. d.name
  local node, leased, pinned, beside = d.node, d.epoch, d.pinned, d.fifo
  local wants, candidate, order = false, false, false
  if d.queued > 0 and not d.writer then
    local f, first_f, place_f = head(P .. 'fifo:' .. device)
    -- Beside a job of its own queue none of that starts.
    local h, first_h
    if not pinned then h, first_h = head(P .. 'queue:' .. device) end
    local first_m
    if f or h then
      local m
      m, first_m = head(P .. 'changes:' .. device)
    end
    local function may_start(o)
      if first_m == o then
        return not pinned and not beside and o == math.min(first_h or o, first_f or o)
      end
      return not first_m or first_m > o
    end
    wants = h and may_start(first_h)
    if f and may_start(first_f) then candidate, order = f, place_f end
  end
  if candidate ~= d.entry then
    if d.entry then call('ZREM', P .. 'fifo-ready', d.entry) end
    if candidate then call('ZADD', P .. 'fifo-ready', order, candidate) end
    set(d, 'entry', candidate)
  end
  if candidate then tell_fifo() end
  if wants and not leased then
    if not d.ready then
      call('SADD', P .. 'ready', device)
      set(d, 'ready', '1')
    end
  elseif d.ready then
    call('SREM', P .. 'ready', device)
    set(d, 'ready', false)
  end
  if wants then
    if leased or node then
      tell(node, 'd:' .. device)
    elseif PLACED then
      seek_home(device)
    else
      for _, other in ipairs(live('devices')) do tell(other, 'd:' .. device) end
    end
  end
  local nothing = d.queued == 0 and not pinned and not d.writer and not beside
  if nothing and not leased then
    if node then
      call('SREM', P .. 'given:' .. node, device)
      unmap(device)
    end
    if PLACED then call('SREM', P .. 'homeless', device) end
    call('DEL', key)
    for field in pairs({ node = 1, moving = 1, idle = 1, last = 1 }) do d[field] = false end
    d.new, d.changed = {}, false
  elseif PLACED and leased then
    -- Which of its devices a node could give away.
    if nothing and not d.idle then
      call('SADD', P .. 'idle:' .. node, device)
      set(d, 'idle', '1')
    elseif not nothing and d.idle then
      call('SREM', P .. 'idle:' .. node, device)
      set(d, 'idle', false)
    end
  end
end

-- After any change of a device: at the end of the script it is said who may start.
local function refresh(device) dev(device).touched = true end

-- The same at once, for all that changed so far: where what follows reads the lists.
local function arrange_all()
  for _, d in ipairs(in_order) do
    if d.touched then
      d.touched = false
      arrange(d)
    end
    if d.changed then keep(d) end
  end
end

at_the_end[#at_the_end + 1] = arrange_all
