import { useEffect, useRef, useState } from 'react'
import { Alert } from '~/components/Alert'
import { Button } from '~/components/Button'
import { Link } from '~/components/Link'
import { Page } from '~/components/Page'
import { Status } from '~/components/Status'
import { useSession } from '~/lib/session'
import { fetchProfile, type Profile } from './api'
import { ProfileForm } from './ProfileForm'
import { ProfileView } from './ProfileView'

export function ProfilePage() {
  const { profile, error, retry, setProfile } = useProfile()
  const [editing, setEditing] = useState(false)
  const [message, setMessage] = useState('')
  const edit = useRef<HTMLButtonElement>(null)
  const returning = useRef(false)

  // Who closes the form is put back at the button that opened it.
  useEffect(() => {
    if (!editing && returning.current) edit.current?.focus()
    returning.current = editing
  }, [editing])

  return (
    <Page title="Your profile">
      <Status>{message !== '' && <p>{message}</p>}</Status>
      {error !== null && (
        <>
          <Alert error={error} />
          <Button onClick={retry}>Try again</Button>
        </>
      )}
      {profile === null && error === null && <p className="loading">Loading your profile…</p>}
      {profile !== null && !editing && (
        <>
          <ProfileView profile={profile} />
          <Button
            ref={edit}
            onClick={() => {
              setMessage('')
              setEditing(true)
            }}
          >
            Edit profile
          </Button>
          <p className="aside">
            <Link to="/password">Change your password</Link>
          </p>
        </>
      )}
      {profile !== null && editing && (
        <ProfileForm
          profile={profile}
          onSaved={(saved) => {
            setProfile(saved)
            setMessage('Your profile is saved.')
            setEditing(false)
          }}
          onCancel={() => {
            setEditing(false)
          }}
        />
      )}
    </Page>
  )
}

function useProfile() {
  const session = useSession()
  const [profile, setProfile] = useState<Profile | null>(null)
  const [error, setError] = useState<unknown>(null)
  const [attempt, setAttempt] = useState(1)

  useEffect(() => {
    let left = false
    fetchProfile(session).then(
      (fetched) => {
        if (!left) setProfile(fetched)
      },
      (failure: unknown) => {
        if (!left) setError(failure)
      },
    )
    return () => {
      left = true
    }
  }, [session, attempt])

  function retry() {
    setError(null)
    setAttempt(attempt + 1)
  }
  return { profile, error, retry, setProfile }
}
