-- Talea as a burst buffer of Slurm (BurstBufferType=burst_buffer/lua; this file lies beside slurm.conf).
--
--   #BB_LUA talea size=64G in=/scratch/me/input:/talea/run/input out=/talea/run/heat.h5:/scratch/me/heat.h5
--
-- The system runs on this host (the one of slurmctld, or whichever host the site runs Talea's servers of burst buffers on) as
-- the job's user, from the stage-in, which is before the job starts, to the stage-out, which is after it ended. The job reaches
-- it with `talea attach $TALEA_BB -- srun ./sim`.
--
-- (`size` and not `capacity`, which Slurm takes for a wish from one of its own pools.)
--
-- job_process, pools and paths run inside of slurmctld: they only look at text. All else is asynchronous and runs `talea` as
-- the job's user. What goes wrong stands in the job's reason (`squeue`, `scontrol show job`, `scontrol show burstbuffer`).

local PREFIX = os.getenv("TALEA_PREFIX") or "@PREFIX@"
local SPOOL = os.getenv("TALEA_BB_SPOOL") or "@SPOOL@"
local INTERFACE_SITE = os.getenv("TALEA_BB_SITE") or "@SITE@"
local WORDS = { size = true, ["in"] = true, out = true, tier = true, container = true, ["keep-steps"] = true }

-- Text as one word of the shell.
local function quote(text)
    return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

-- The directives of a script: { capacity = {..}, in = {..}, ... }, or nil and why not.
local function directives(path)
    local file = io.open(path, "r")
    if not file then
        return nil, "cannot read the job script"
    end
    local found, any = {}, false
    for line in file:lines() do
        local rest = line:match("^#BB_LUA%s+talea%s*(.*)$")
        if rest then
            any = true
            for word in rest:gmatch("%S+") do
                local key, value = word:match("^([%w-]+)=(.+)$")
                if not key or not WORDS[key] then
                    file:close()
                    return nil, "#BB_LUA talea: '" .. word .. "' is not size=, in=SRC:DST, out=SRC:DST, tier=, container= or keep-steps="
                end
                found[key] = found[key] or {}
                table.insert(found[key], value)
            end
        elseif not line:match("^#") and not line:match("^%s*$") then
            break
        end
    end
    file:close()
    return any and found or nil
end

local function check(found)
    for _, key in ipairs({ "in", "out" }) do
        for _, value in ipairs(found[key] or {}) do
            if not value:match("^/[^:]*:/%S+$") then
                return "#BB_LUA talea: " .. key .. "=" .. value .. " is not SRC:DST with two absolute paths"
            end
        end
    end
    local size = found.size and found.size[1]
    if size and not size:match("^%d+%.?%d*[KMGT]?i?B?$") then
        return "#BB_LUA talea: size=" .. size .. " is not a size such as 64G"
    end
    return nil
end

-- Where the job's user stands: only since 23.02 every function is told.
local function note_of(job_id)
    return SPOOL .. "/jobs/" .. job_id
end

local function remember(job_id, uid, gid)
    os.execute("mkdir -p -m 0711 " .. quote(SPOOL) .. " " .. quote(SPOOL .. "/jobs"))
    local file = io.open(note_of(job_id), "w")
    if file then
        file:write(uid .. " " .. gid .. "\n")
        file:close()
    end
end

-- The job's user and group, or nil if the job never got as far as its setup.
local function user_of(job_id, uid, gid)
    if uid and gid then
        return uid, gid
    end
    local file = io.open(note_of(job_id), "r")
    if not file then
        return nil
    end
    uid, gid = file:read("*n", "*n")
    file:close()
    return uid, gid
end

-- Servers that stay must not keep Slurm's own pipes open, whose ends it waits for.
local ALONE = "for f in /proc/$$/fd/*; do n=${f##*/}; [ $n -le 2 ] || eval \"exec $n>&-\"; done; "

-- Runs Talea as the job's user on this host; true, or false and its last words.
local function talea(job_id, uid, gid, arguments)
    local runtime = SPOOL .. "/" .. uid
    local words = {}
    for _, argument in ipairs(arguments) do
        table.insert(words, quote(argument))
    end
    local command = ALONE .. "mkdir -p -m 0711 " .. quote(SPOOL) .. " && install -d -m 0700 -o " .. uid .. " -g " .. gid .. " " ..
        quote(runtime) .. " && setpriv --reuid=" .. uid .. " --regid=" .. gid .. " --init-groups --no-new-privs env -i " ..
        "PATH=/usr/bin:/bin TALEA_RUNTIME_DIR=" .. quote(runtime) .. " TALEA_SITE=" .. quote(INTERFACE_SITE) .. " " ..
        quote(PREFIX .. "/bin/talea") .. " " .. table.concat(words, " ") .. " 2>&1 </dev/null; echo \"::$?\""
    local pipe = io.popen("bash -c " .. quote(command), "r")
    local output = pipe and pipe:read("*a") or "::127"
    if pipe then
        pipe:close()
    end
    local text, code = output:match("^(.*)::(%d+)%s*$")
    if code == "0" then
        return true, text
    end
    text = (text or output):gsub("%s+$", "")
    slurm.log_error("talea: job %s: %s: %s", job_id, arguments[1], text)
    return false, text:match("([^\n]*)$") or text
end

local function name_of(job_id)
    return "bb-" .. job_id
end

-- Validates what the user asks for (inside slurmctld: text only).
function slurm_bb_job_process(job_script, uid, gid, job_info)
    local found, why = directives(job_script)
    if why then
        return slurm.ERROR, why
    end
    why = found and check(found)
    if why then
        return slurm.ERROR, why
    end
    return slurm.SUCCESS
end

function slurm_bb_pools()
    return slurm.SUCCESS
end

-- Starts the system.
function slurm_bb_setup(job_id, uid, gid, pool, bb_size, job_script, job_info)
    local found, why = directives(job_script)
    if not found then
        return why and slurm.ERROR or slurm.SUCCESS, why or ""
    end
    remember(job_id, uid, gid)
    local arguments = { "up", "--name", name_of(job_id), "--fabric", "auto" }
    for key, option in pairs({ size = "--capacity", tier = "--tier", container = "--container", ["keep-steps"] = "--keep-steps" }) do
        if found[key] then
            table.insert(arguments, option)
            table.insert(arguments, found[key][1])
        end
    end
    local good, words = talea(job_id, uid, gid, arguments)
    return good and slurm.SUCCESS or slurm.ERROR, words
end

-- Copies in, before the job starts.
function slurm_bb_data_in(job_id, job_script, uid, gid, job_info)
    local found = directives(job_script) or {}
    uid, gid = user_of(job_id, uid, gid)
    for _, order in ipairs(uid and found["in"] or {}) do
        local source, destination = order:match("^([^:]*):(.*)$")
        local good, words = talea(job_id, uid, gid, { "cp", "-r", "--system", name_of(job_id), source, destination })
        if not good then
            return slurm.ERROR, "stage-in of " .. source .. ": " .. words
        end
    end
    return slurm.SUCCESS, ""
end

function slurm_bb_real_size(job_id, uid, gid, job_info)
    return slurm.SUCCESS
end

-- Tells the job where its system's directory is (inside slurmctld). A path, not a secret.
function slurm_bb_paths(job_id, job_script, path_file, uid, gid, job_info)
    uid = user_of(job_id, uid, gid)
    if uid and directives(job_script) then
        local file = io.open(path_file, "w")
        if file then
            file:write("TALEA_BB=" .. SPOOL .. "/" .. uid .. "/" .. name_of(job_id) .. "\n")
            file:close()
        end
    end
    return slurm.SUCCESS
end

function slurm_bb_pre_run(job_id, job_script, uid, gid, job_info)
    return slurm.SUCCESS
end

function slurm_bb_post_run(job_id, job_script, uid, gid, job_info)
    return slurm.SUCCESS
end

-- Copies out what is committed, after the job ended, however it did.
function slurm_bb_data_out(job_id, job_script, uid, gid, job_info)
    local found = directives(job_script) or {}
    local failure
    uid, gid = user_of(job_id, uid, gid)
    for _, order in ipairs(uid and found.out or {}) do
        local source, destination = order:match("^([^:]*):(.*)$")
        local good, words = talea(job_id, uid, gid, { "cp", "-r", "--system", name_of(job_id), source, destination })
        failure = failure or (not good and "stage-out of " .. source .. ": " .. words) or nil
    end
    if failure then
        return slurm.ERROR, failure
    end
    return slurm.SUCCESS, ""
end

-- Ends the system. Also for jobs that never came so far: what is not there is no failure.
function slurm_bb_job_teardown(job_id, job_script, hurry, uid, gid)
    uid, gid = user_of(job_id, uid, gid)
    if not uid then
        return slurm.SUCCESS, ""
    end
    local file = io.open(SPOOL .. "/" .. uid .. "/" .. name_of(job_id) .. "/system.json", "r")
    if file then
        file:close()
        talea(job_id, uid, gid, { "down", "--yes", name_of(job_id) })
    end
    os.remove(note_of(job_id))
    os.execute("rmdir " .. quote(SPOOL .. "/" .. uid) .. " " .. quote(SPOOL .. "/jobs") .. " 2>/dev/null")
    return slurm.SUCCESS, ""
end

-- `scontrol show bbstat`: the caller's own systems, where Slurm says who calls.
function slurm_bb_get_status(uid, gid, ...)
    if not tonumber(uid) or not tonumber(gid) then
        return slurm.SUCCESS, "this Slurm does not say who asks\n"
    end
    local good, words = talea("-", uid, gid, { "status" })
    return slurm.SUCCESS, words .. "\n"
end
